/**
 * What workers do for quantizing.
 *
 * @module
 */
import type { Feedback } from "../../quant/error_feedback.ts";
import type { Quantizer, StoredTensor } from "../../quant/quantize.ts";
import type { WorkerPool } from "../host/worker_pool.ts";
import type { Linear } from "../llama/llama.ts";
import type { CalibrationPart, StageSums } from "./calibration.ts";

/** A matrix to quantize. */
export interface QuantizeTask {
  /** The matrix. */
  readonly linear: Linear;
  /** How it is quantized. */
  readonly quantizer: Quantizer;
  /** Error feedback of its input. */
  readonly feedback?: Feedback;
  /** f64 [channels]: how much squared errors count, where there is no feedback. */
  readonly channelWeights?: Float64Array;
  /** Sums that correct the target: {@linkcode StageSums}. */
  readonly drift?: Float32Array;
  /** See {@linkcode StageSums}. */
  readonly lack?: Float32Array;
  /** The tiles to quantize, first and last + 1. */
  readonly tiles: readonly [number, number];
}

/** What workers do for quantizing. */
export interface QuantizeTasks {
  /** Takes calibration windows to the inputs of a stage, or to the end of a layer. */
  advanceStage(part: CalibrationPart): Promise<void>;
  /** Sums the inputs of a stage. */
  sumStage(part: CalibrationPart): Promise<StageSums>;
  /** Quantizes tiles of a matrix. */
  quantize(task: QuantizeTask): Promise<StoredTensor>;
}

/** Workers that quantize. */
export type QuantizePool = WorkerPool<QuantizeTasks>;
