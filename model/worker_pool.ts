/**
 * A pool of workers that run the tasks of cpu_worker.ts. Task i of a batch always runs on worker i mod size and
 * results come back in order, so nothing depends on timing.
 *
 * @module
 */
import type { CpuTasks } from "./cpu_worker.ts";

/** Name of a task. */
export type TaskName = keyof CpuTasks;
/** What a task is given. */
export type Payload<N extends TaskName> = Parameters<CpuTasks[N]>[0];
/** What a task returns. */
export type TaskResult<N extends TaskName> = Awaited<ReturnType<CpuTasks[N]>>;

/** Workers with one model's weights shared between them. */
export interface WorkerPool extends Disposable {
  /** Number of workers. */
  readonly size: number;
  /** Runs a task once on every worker. */
  broadcast<N extends TaskName>(name: N, payload: Payload<N>): Promise<void>;
  /** Runs a task for every payload; `onDone` is told how many have finished. */
  map<N extends TaskName>(
    name: N,
    payloads: readonly Payload<N>[],
    onDone?: (done: number) => void,
  ): Promise<TaskResult<N>[]>;
}

/** Message from the pool to a worker. */
export interface TaskMessage {
  /** Number that the reply repeats. */
  readonly id: number;
  /** The task. */
  readonly name: TaskName;
  /** What it is given. */
  readonly payload: unknown;
}

/** Message from a worker to the pool. */
export type TaskReply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly name: string; readonly message: string } };

/** Starts workers; dispose the pool to end them. */
export function createWorkerPool(size: number = navigator.hardwareConcurrency): WorkerPool {
  const workers = Array.from({ length: size }, startWorker);
  return {
    size,
    async broadcast(name, payload) {
      await Promise.all(workers.map((worker) => worker.run(name, payload)));
    },
    async map<N extends TaskName>(name: N, payloads: readonly Payload<N>[], onDone?: (done: number) => void) {
      let done = 0;
      return await Promise.all(payloads.map(async (payload, i) => {
        const result = await workers[i % size].run(name, payload);
        onDone?.(++done);
        return result as TaskResult<N>;
      }));
    },
    [Symbol.dispose]: () => workers.forEach((worker) => worker.terminate()),
  };
}

function startWorker() {
  const worker = new Worker(new URL("./cpu_worker.ts", import.meta.url), { type: "module" });
  const waiting = new Map<number, PromiseWithResolvers<unknown>>();
  let nextId = 0;
  worker.onmessage = ({ data }: MessageEvent<TaskReply>) => {
    const entry = waiting.get(data.id);
    waiting.delete(data.id);
    if ("error" in data) entry?.reject(rebuildError(data.error));
    else entry?.resolve(data.result);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) reject(new Error(`worker failed: ${event.message}`));
    waiting.clear();
  };
  return {
    run(name: TaskName, payload: unknown): Promise<unknown> {
      const id = nextId++;
      const entry = Promise.withResolvers<unknown>();
      waiting.set(id, entry);
      worker.postMessage({ id, name, payload } satisfies TaskMessage);
      return entry.promise;
    },
    terminate: () => worker.terminate(),
  };
}

function rebuildError({ name, message }: { name: string; message: string }): Error {
  const kinds: Record<string, ErrorConstructor> = { TypeError, RangeError, SyntaxError };
  return new (kinds[name] ?? Error)(message);
}
