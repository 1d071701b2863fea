/**
 * One entrance to all ways of quantizing a matrix, and one shape for what they store.
 *
 * @module
 */
import { type BaselineSettings, quantizeBaseline } from "./baseline.ts";
import type { Feedback, FeedbackSettings } from "./error_feedback.ts";
import { dequantizeStrips, stripBytes, type StripTensor } from "./strip_tensor.ts";

/** A way of quantizing, as data. */
export interface Quantizer {
  readonly kind: "baseline";
  readonly settings: BaselineSettings;
  /** Error feedback's settings; without them weights are rounded to nearest and no Hessian is needed. */
  readonly feedback?: FeedbackSettings;
}

/** A matrix as it is stored. */
export interface StoredTensor {
  readonly kind: "strips";
  readonly tensor: StripTensor;
}

/** Quantizes f32 [rows, channels] with a quantizer; `feedback` belongs to the Hessian of the matrix's input. */
export function quantizeMatrix(
  weights: Float32Array,
  rows: number,
  channels: number,
  { settings }: Quantizer,
  feedback?: Feedback,
): StoredTensor {
  return { kind: "strips", tensor: quantizeBaseline(weights, rows, channels, settings, feedback) };
}

/** Decodes a stored matrix: f32 [rows, channels]. */
export function dequantizeStored({ tensor }: StoredTensor): Float32Array<ArrayBuffer> {
  return dequantizeStrips(tensor);
}

/** Bytes of a stored matrix. */
export function storedBytes({ tensor }: StoredTensor): number {
  return stripBytes(tensor);
}
