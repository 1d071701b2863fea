// Workers of the CPU.
import type { StoredTensor } from "../../quant/quantize.ts";
import { memoryOf } from "../host/release.ts";
import { createWorkerPool, type WorkerPool } from "../host/worker_pool.ts";
import type { QuantizeTask, StripScalesTask } from "../quantize/quantize_tasks.ts";
import type { CpuTasks } from "./cpu_worker.ts";

export type CpuPool = WorkerPool<CpuTasks>;

/** Starts workers of the CPU, one a core by default; dispose the pool to end them. */
export function createCpuPool(size?: number): CpuPool {
  return createWorkerPool<CpuTasks>(new URL("./cpu_worker.ts", import.meta.url), size, partOf);
}

/** What was cut out of a matrix for one task: all that of it isn't shared. */
function partOf(name: keyof CpuTasks, payload: unknown): ArrayBuffer[] {
  switch (name) {
    case "quantize":
      return memoryOf((payload as QuantizeTask).linear);
    case "fitStrips":
      return memoryOf((payload as StripScalesTask).matrix);
    case "decodeHalf":
      return memoryOf((payload as StoredTensor).tensor);
    default:
      return [];
  }
}
