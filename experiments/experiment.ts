/**
 * What an experiment is, and what it is given to work with.
 *
 * @module
 */
import type { Calibrator } from "../model/quantize/calibrator.ts";
import type { Model } from "../model/llama/llama.ts";
import type { LoadedModel } from "../model/load.ts";
import type { Evaluation, EvaluationSet } from "../model/evaluate/evaluation.ts";
import type { Windows } from "../model/text/windows.ts";
import type { Scorer } from "../model/evaluate/scorer.ts";
import type { CpuPool } from "../model/workers/cpu_pool.ts";
import type { Findings } from "./results/result.ts";

/** One claim of the paper and the code that measures it. */
export interface Experiment {
  readonly id: string;
  readonly title: string;
  /** The paper's claim, in one sentence. */
  readonly claim: string;
  /** Where what is measured differs from the paper's definitions. */
  readonly differs: string;
  /** Whether its numbers are timings, which mean nothing on a software adapter. */
  readonly needsGpu: boolean;
  /** Whether it measures the run's model; otherwise random weights in the shapes of published ones. */
  readonly needsModel: boolean;
  run(context: ExperimentContext): Promise<Findings>;
}

/** A model's evaluation set and the evaluation of the unquantized model on it. */
export interface Baseline {
  readonly set: EvaluationSet;
  readonly reference: Evaluation;
  /** Where models are scored. */
  readonly scoredOn: string;
  /** Windows of text that is not evaluated. */
  readonly calibration: Windows;
}

/** What experiments share during a run; everything is made when it is first asked for. */
export interface ExperimentContext {
  /** Fewer rows and less text, for a first look and for CI. */
  readonly quick: boolean;
  readonly seed: number;
  readonly pool: CpuPool;
  /** Scores models: on the GPU where there is a real one. */
  scorer(): Promise<Scorer>;
  model(): Promise<LoadedModel>;
  /** The model's weights in shared memory. */
  sharedModel(): Promise<Model>;
  /** Evaluates the unquantized model once; the scorer keeps its predictions for comparison. */
  baseline(): Promise<Baseline>;
  /** Puts the calibration text on its way through the model anew; with corrected targets also through the original. */
  calibrator(correctTarget: boolean): Promise<Calibrator>;
  /** The sums of the unquantized model, measured once: equal calibration for many settings. */
  fixedCalibrator(): Promise<Calibrator>;
  /**
   * Samples of decode speed in tokens a second, by model, format and context; who measures first leaves them for the
   * others.
   */
  readonly decodeSpeeds: Map<string, readonly number[]>;
  /** Tells the person who waits: share of the experiment done, 0..1, and what is being done. */
  progress(share: number, step: string): void;
}
