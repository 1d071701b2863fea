// What workers do for quantizing.
import type { Feedback } from "../../quant/error_feedback.ts";
import type { StripScales } from "../../quant/baselines/strip_tensor.ts";
import type { StripSettings } from "../../quant/baselines/strips.ts";
import type { Quantizer, StoredTensor } from "../../quant/quantize.ts";
import type { Matrix } from "../../quant/quantizer.ts";
import type { WorkerPool } from "../host/worker_pool.ts";
import type { Linear } from "../llama/llama.ts";
import type { CalibrationPart, StageSums } from "./calibration.ts";

export interface QuantizeTask {
  readonly linear: Linear;
  readonly quantizer: Quantizer;
  /** Error feedback of its input. */
  readonly feedback?: Feedback;
  /** f64 [channels]: the Hessian's diagonal, where channels are weighed by it. */
  readonly diagonal?: Float64Array;
  /** Sums that correct the target: {@linkcode StageSums}. */
  readonly drift?: Float32Array;
  /** See {@linkcode StageSums}. */
  readonly lack?: Float32Array;
  /** The tiles to quantize, first and last + 1. */
  readonly tiles: readonly [number, number];
}

/** Rows of a matrix in a strip layout whose scales are to be found. */
export interface StripScalesTask {
  /** The layout, and how its scales are found. */
  readonly settings: StripSettings;
  /** Rows of the matrix, whole tiles. */
  readonly matrix: Matrix;
  /** f64 [channels]: weight of a channel's squared error. */
  readonly importance: Float64Array;
  /** [strips]: 1 for each 4-bit strip. */
  readonly fourBit: Uint8Array<ArrayBuffer>;
}

export interface QuantizeTasks {
  /** Takes calibration windows to the inputs of a stage, or to the end of a layer. */
  advanceStage(part: CalibrationPart): Promise<void>;
  sumStage(part: CalibrationPart): Promise<StageSums>;
  quantize(task: QuantizeTask): Promise<StoredTensor>;
  /** Finds the scales of rows in a strip layout, for a device that rounds to them. */
  fitStrips(task: StripScalesTask): StripScales;
  /** Decodes a stored matrix to f16 [rows, channels]; a weight that is NaN or beyond f16's range is an error. */
  decodeHalf(stored: StoredTensor): Float16Array<ArrayBuffer>;
}

export type QuantizePool = WorkerPool<QuantizeTasks>;
