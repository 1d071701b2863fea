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
  /** Sums that correct the target: {@linkcode StageSums}. */
  readonly drift?: Float32Array;
  /** See {@linkcode StageSums}. */
  readonly lack?: Float32Array;
  /** The tiles to quantize, first and last + 1. */
  readonly tiles: readonly [number, number];
}

/** What workers do for quantizing. */
export interface QuantizeTasks {
  /** Computes the inputs of a calibration stage and their sums. */
  calibrateStage(part: CalibrationPart): Promise<StageSums>;
  /** Computes the inputs of a calibration stage only. */
  advanceStage(part: CalibrationPart): Promise<void>;
  /** Takes calibration windows to the end of a layer. */
  finishLayer(part: CalibrationPart): Promise<void>;
  /** Quantizes tiles of a matrix. */
  quantize(task: QuantizeTask): Promise<StoredTensor>;
}

/** Workers that quantize. */
export type QuantizePool = WorkerPool<QuantizeTasks>;
