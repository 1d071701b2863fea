// A pool of workers that run named tasks. Task i of a batch always runs on worker i mod size and results come back in
// order, so nothing depends on timing. A worker's file says what its tasks are and calls {@linkcode serveTasks}.
import { fromFileUrl } from "@std/path";
import { clipText } from "./quote_text.ts";

/** What a worker can do: functions of one payload, by name; payload and result are copied, memory that is shared is not. */
// deno-lint-ignore no-explicit-any -- each function has a payload of its own
export type Tasks<T> = { readonly [N in keyof T]: (payload: any) => unknown };

export type Payload<T extends Tasks<T>, N extends keyof T> = Parameters<T[N]>[0];
export type TaskResult<T extends Tasks<T>, N extends keyof T> = Awaited<ReturnType<T[N]>>;

/** Workers that all can do the tasks `T`. Dispose it to end them. */
export interface WorkerPool<T extends Tasks<T>> extends Disposable {
  readonly size: number;
  /** Runs a task once on every worker. */
  broadcast<N extends keyof T>(name: N, payload: Payload<T, N>): Promise<void>;
  /** Runs a task for every payload; `onDone` is told how many have finished. */
  map<N extends keyof T>(
    name: N,
    payloads: readonly Payload<T, N>[],
    onDone?: (done: number) => void,
  ): Promise<TaskResult<T, N>[]>;
}

/** Message from the pool to a worker. */
interface TaskMessage {
  /** Number that the reply repeats. */
  readonly id: number;
  readonly name: PropertyKey;
  readonly payload: unknown;
}

/** Message from a worker to the pool. An error comes with its class where that is one of the language's. */
type TaskReply = { readonly id: number; readonly result: unknown } | { readonly id: number; readonly error: unknown };

/**
 * Starts workers.
 *
 * @param file the worker's module, which calls {@linkcode serveTasks} with its tasks
 * @throws {Error} where the modules may not be read
 */
export function createWorkerPool<T extends Tasks<T>>(
  file: URL,
  size: number = navigator.hardwareConcurrency,
): WorkerPool<T> {
  allowReading(file);
  const workers = Array.from({ length: size }, () => startWorker(file));
  return {
    size,
    async broadcast(name, payload) {
      await Promise.all(workers.map((worker) => worker.run(name, payload)));
    },
    async map<N extends keyof T>(name: N, payloads: readonly Payload<T, N>[], onDone?: (done: number) => void) {
      let done = 0;
      return await Promise.all(payloads.map(async (payload, i) => {
        const result = await workers[i % size].run(name, payload);
        onDone?.(++done);
        return result as TaskResult<T, N>;
      }));
    },
    [Symbol.dispose]: () => workers.forEach((worker) => worker.terminate()),
  };
}

/** Asks for what a worker's modules need, since each worker that lacks it prints a trace of its own. @throws {Error} */
function allowReading({ protocol }: URL): void {
  if (protocol !== "file:") return;
  const path = fromFileUrl(new URL("../../", import.meta.url));
  if (Deno.permissions.requestSync({ name: "read", path }).state === "granted") return;
  throw new Error(`workers require read access to their modules in ${path}, run again with the --allow-read flag`);
}

function startWorker(file: URL) {
  const worker = new Worker(file, { type: "module" });
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let failure: Error | undefined;
  let nextId = 0;
  worker.onmessage = ({ data }: MessageEvent<TaskReply>) => {
    const entry = waiting.get(data.id);
    waiting.delete(data.id);
    if ("error" in data) entry?.reject(data.error);
    else entry?.resolve(data.result);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    // A worker that could not even start does nothing that it is asked for later.
    failure = new Error(`worker failed: ${clipText(event.message, 200)}`);
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  return {
    run(name: PropertyKey, payload: unknown): Promise<unknown> {
      if (failure) return Promise.reject(failure);
      const id = nextId++;
      const entry = Promise.withResolvers<unknown>();
      waiting.set(id, entry);
      worker.postMessage({ id, name, payload } satisfies TaskMessage);
      return entry.promise;
    },
    terminate: () => worker.terminate(),
  };
}

/**
 * Makes the file that calls it a worker that does `tasks`.
 *
 * @param movedOf memory of a result that the worker gives away instead of copying it
 */
export function serveTasks<T extends Tasks<T>>(
  tasks: T,
  movedOf: (name: keyof T, result: unknown) => ArrayBuffer[] = () => [],
): void {
  // The compiler takes this file for a page's; in a worker globalThis is its scope.
  const scope = globalThis as unknown as Worker;
  scope.onmessage = async ({ data: { id, name, payload } }: MessageEvent<TaskMessage>) => {
    try {
      const result = await tasks[name as keyof T](payload);
      scope.postMessage({ id, result } satisfies TaskReply, movedOf(name as keyof T, result));
    } catch (error) {
      scope.postMessage({ id, error } satisfies TaskReply);
    }
  };
}
