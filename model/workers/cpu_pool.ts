// Workers of the CPU.
import { createWorkerPool, type WorkerPool } from "../host/worker_pool.ts";
import type { CpuTasks } from "./cpu_worker.ts";

export type CpuPool = WorkerPool<CpuTasks>;

/** Starts workers of the CPU, one a core by default; dispose the pool to end them. */
export function createCpuPool(size?: number): CpuPool {
  return createWorkerPool<CpuTasks>(new URL("./cpu_worker.ts", import.meta.url), size);
}
