/**
 * Where models are scored: on the pool's workers, or on the GPU engine.
 *
 * @module
 */
import type { WindowTask } from "./cpu_worker.ts";
import type { Model } from "./llama.ts";
import type { ChoiceItem, WindowScore } from "./score.ts";
import { shareDeep } from "./shared.ts";
import type { WorkerPool } from "./worker_pool.ts";

/** Scores one model at a time; it keeps a reference's predictions to compare later models with. */
export interface Scorer {
  /** Where it runs and in what precision, for tables. */
  readonly device: string;
  /** Takes the model to score. */
  setModel(model: Model): Promise<void>;
  /** Scores windows of text; `onDone` is told how many are done. */
  scoreWindows(tasks: readonly WindowTask[], onDone?: (done: number) => void): Promise<WindowScore[]>;
  /** Scores batches of multiple-choice items: [batch][item][continuation]. */
  scoreChoices(
    batches: readonly (readonly ChoiceItem[])[],
    onDone?: (done: number) => void,
  ): Promise<number[][][]>;
}

/** Scores on a pool's workers, with the CPU reference. */
export function createCpuScorer(pool: WorkerPool): Scorer {
  return {
    device: "CPU reference, f32",
    setModel: (model) => pool.broadcast("setModel", shareDeep(model)),
    scoreWindows: (tasks, onDone) => pool.map("scoreWindow", tasks, onDone),
    scoreChoices: (batches, onDone) => pool.map("scoreChoices", batches, onDone),
  };
}
