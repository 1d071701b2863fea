// A pool of workers that run named tasks. Task i of a batch always runs on worker i mod size and results come back in
// order, so nothing depends on timing. A worker's file says what its tasks are and calls {@linkcode serveTasks}.
import { fromFileUrl } from "@std/path";
import { clipText } from "./quote_text.ts";

/** What a worker can do: functions of one payload, by name; payload and result are copied, memory that is shared is not. */
// deno-lint-ignore no-explicit-any -- each function has a payload of its own
export type Tasks<T> = { readonly [N in keyof T]: (payload: any) => unknown };

export type Payload<T extends Tasks<T>, N extends keyof T> = Parameters<T[N]>[0];
export type TaskResult<T extends Tasks<T>, N extends keyof T> = Awaited<ReturnType<T[N]>>;

/** Told how many tasks have finished, what came of the last of them, and which it is. */
export type OnDone<R> = (done: number, result: R, index: number) => void;

/** Workers that all can do the tasks `T`. Dispose it to end them. */
export interface WorkerPool<T extends Tasks<T>> extends Disposable {
  readonly size: number;
  /** Runs a task once on every worker. */
  broadcast<N extends keyof T>(name: N, payload: Payload<T, N>): Promise<void>;
  /** Runs a task for every payload. */
  map<N extends keyof T>(
    name: N,
    payloads: readonly Payload<T, N>[],
    onDone?: OnDone<TaskResult<T, N>>,
  ): Promise<TaskResult<T, N>[]>;
}

/** Memory of a payload or a result of a task that is given away instead of being copied. */
export type MovedOf<T> = (name: keyof T, value: unknown) => ArrayBuffer[];

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
 * @param movedOf memory of a payload that its worker gets
 * @throws {Error} where the modules may not be read
 */
export function createWorkerPool<T extends Tasks<T>>(
  file: URL,
  size: number = navigator.hardwareConcurrency,
  movedOf: MovedOf<T> = () => [],
): WorkerPool<T> {
  allowReading(file);
  const workers = Array.from({ length: size }, () => startWorker(file));
  return {
    size,
    async broadcast(name, payload) {
      await Promise.all(workers.map((worker) => worker.run(name, payload)));
    },
    async map<N extends keyof T>(name: N, payloads: readonly Payload<T, N>[], onDone?: OnDone<TaskResult<T, N>>) {
      let done = 0;
      return await Promise.all(payloads.map(async (payload, i) => {
        const result = await workers[i % size].run(name, payload, movedOf(name, payload)) as TaskResult<T, N>;
        onDone?.(++done, result, i);
        return result;
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
    run(name: PropertyKey, payload: unknown, moved: ArrayBuffer[] = []): Promise<unknown> {
      if (failure) return Promise.reject(failure);
      const id = nextId++;
      const entry = Promise.withResolvers<unknown>();
      waiting.set(id, entry);
      worker.postMessage({ id, name, payload } satisfies TaskMessage, moved);
      return entry.promise;
    },
    terminate: () => worker.terminate(),
  };
}

/**
 * Makes the file that calls it a worker that does `tasks`.
 *
 * @param movedOf memory of a result that the pool gets
 */
export function serveTasks<T extends Tasks<T>>(tasks: T, movedOf: MovedOf<T> = () => []): void {
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
