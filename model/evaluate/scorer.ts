// Where models are scored: on the pool's workers, or on the GPU engine.
import type { Model } from "../llama/llama.ts";
import type { ChoiceItem, WindowScore } from "./score.ts";
import { shareDeep } from "../host/shared.ts";
import type { WorkerPool } from "../host/worker_pool.ts";

export interface WindowTask {
  /** Index of the window; the reference is kept by it. */
  readonly index: number;
  /** Its tokens, BOS first. */
  readonly tokens: Uint32Array;
  /** Whether to keep this window's log-probabilities as the reference, compare with them, or neither. */
  readonly reference: "keep" | "compare" | "none";
}

export interface ScoreTasks {
  setModel(model: Model): void;
  scoreWindow(task: WindowTask): Promise<WindowScore>;
  /** Scores multiple-choice items: [item][continuation]. */
  scoreChoices(items: readonly ChoiceItem[]): Promise<number[][]>;
}

/** Scores one model at a time; it keeps a reference's predictions to compare later models with. */
export interface Scorer {
  /** Where it runs and in what precision, for tables. */
  readonly device: string;
  setModel(model: Model): Promise<void>;
  /** Scores windows of text; `onDone` is told how many are done. */
  scoreWindows(tasks: readonly WindowTask[], onDone?: (done: number) => void): Promise<WindowScore[]>;
  /** Scores batches of multiple-choice items: [batch][item][continuation]. */
  scoreChoices(batches: readonly (readonly ChoiceItem[])[], onDone?: (done: number) => void): Promise<number[][][]>;
}

export function createCpuScorer(pool: WorkerPool<ScoreTasks>): Scorer {
  return {
    device: "CPU reference, f32",
    setModel: (model) => pool.broadcast("setModel", shareDeep(model)),
    scoreWindows: (tasks, onDone) => pool.map("scoreWindow", tasks, onDone),
    scoreChoices: (batches, onDone) => pool.map("scoreChoices", batches, onDone),
  };
}
