// What an experiment is, and what it is given to work with.
import type { Model } from "../model/llama/llama.ts";
import type { LoadedModel, OpenModel } from "../model/load.ts";
import type { Evaluation, EvaluationSet } from "../model/evaluate/evaluation.ts";
import type { CpuPool } from "../model/workers/cpu_pool.ts";
import type { FinishedRows, Measured, RowsState } from "./finished_rows.ts";
import type { ModelPlace } from "./models/model_place.ts";
import type { Findings } from "./results/result.ts";

/** One claim of the paper, or of ours, and the code that measures it. */
export interface Experiment {
  readonly id: string;
  readonly title: string;
  readonly claim: string;
  /** Where what is measured differs from the paper's definitions. */
  readonly differs: string;
  /** Whether its numbers are timings, which mean nothing on a software adapter. */
  readonly needsGpu: boolean;
  /** Whether it measures the run's model; otherwise, and for the embedded one perhaps, random weights in published shapes. */
  readonly needsModel: boolean;
  /** Whether the claim is ours and not the paper's: README's table of its claims leaves it out. */
  readonly isOurs?: boolean;
  /** Whether a quick run of all experiments leaves it out. */
  readonly takesWholeRun?: boolean;
  run(context: ExperimentContext): Promise<Findings>;
}

/** A model's evaluation set and the evaluation of the unquantized model on it. */
export interface Baseline {
  readonly set: EvaluationSet;
  readonly reference: Evaluation;
  /** Where models are scored. */
  readonly scoredOn: string;
  /** The GPU that models are quantized on; by default the CPU. */
  readonly quantizedOn?: string;
  /** Windows of text that is not evaluated, and what that is. */
  readonly calibration: { readonly text: string; readonly windows: readonly Uint32Array[] };
  /** All that decides what is measured of a quantizer. */
  readonly state: RowsState;
}

/** The run's model, whose tensors are read when they are asked for. */
export interface OpenedModel {
  readonly name: string;
  readonly checkpoint: OpenModel;
  /** sha256 of the weight files, one after the other, in hexadecimal. */
  readonly sha256: string;
}

/** What experiments share during a run; everything is made when it is first asked for. */
export interface ExperimentContext {
  /** Fewer rows and less text, for a first look and for CI. */
  readonly quick: boolean;
  readonly seed: number;
  /** Name of the run's evaluation text. */
  readonly textName: string;
  readonly pool: CpuPool;
  /** A directory that the run may write to. */
  readonly directory: string;
  /** A file that the model was packed into, for those who measure what is packed. */
  readonly quantizedName?: string;
  opened(): Promise<OpenedModel>;
  model(): Promise<LoadedModel>;
  /** The model's weights in shared memory. */
  sharedModel(): Promise<Model>;
  place(): Promise<ModelPlace>;
  /** Evaluates the unquantized model once; the scorer keeps its predictions for comparison. */
  baseline(): Promise<Baseline>;
  /** The windows of random tokens by which `quantize` weighs channels where it searches without text. */
  randomWindows(): Promise<readonly Uint32Array[]>;
  /** What was measured of quantizers, by what they are: a row that several experiments have is measured once. */
  readonly measured: Map<string, Measured>;
  /** All that decides what is measured of a quantizer with this set and calibration. */
  describeState(set: EvaluationSet, calibration: Baseline["calibration"]): Promise<RowsState>;
  /** The experiment's rows that are finished; who asks first says in what state, by default the baseline's. */
  finishedRows(state?: RowsState): Promise<FinishedRows>;
  /**
   * Samples of decode speed in tokens a second, by model, format and context, none where the model doesn't fit; who measures
   * first leaves them for the others.
   */
  readonly decodeSpeeds: Map<string, readonly number[]>;
  /** Tells the person who waits: share of the experiment done, 0..1, and what is being done. */
  progress(share: number, step: string): void;
}
