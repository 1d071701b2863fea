/**
 * One entrance to all ways of quantizing a matrix, and one shape for what they store.
 *
 * @module
 */
import { type BaselineSettings, quantizeBaseline } from "./baselines/baseline.ts";
import { concatenateRows } from "./concatenate.ts";
import { dequantize } from "./dequantize.ts";
import type { FeedbackSettings } from "./error_feedback.ts";
import { tilesPerColumn } from "./format.ts";
import { type PackedTensor, planeBytes } from "./packed_tensor.ts";
import { dequantizeStrips, stripBytes, type StripTensor } from "./baselines/strip_tensor.ts";
import { dequantizeQ2k, type Q2kTensor, quantizeQ2k } from "./baselines/quantize_q2k.ts";
import type { InputKnowledge } from "./input_knowledge.ts";
import { quantizeTwobit, type TwobitSettings } from "./twobit.ts";

/** A way of quantizing, as data. */
export type Quantizer =
  & ({
    readonly kind: "baseline";
    readonly settings: BaselineSettings;
  } | {
    readonly kind: "twobit";
    readonly settings: TwobitSettings;
  } | {
    /** llama.cpp's Q2_K; of the feedback's Hessian it uses the diagonal alone. */
    readonly kind: "q2_k";
  })
  & {
    /** Error feedback's settings; without them no Hessian is needed. */
    readonly feedback?: FeedbackSettings;
    /** Whether targets are corrected for what the earlier layers' quantization changed (target.ts). */
    readonly correctTarget?: boolean;
  };

/** A matrix as it is stored. */
export type StoredTensor =
  | { readonly kind: "strips"; readonly tensor: StripTensor }
  | { readonly kind: "packed"; readonly tensor: PackedTensor }
  | { readonly kind: "q2_k"; readonly tensor: Q2kTensor };

/** Tiles of a matrix that can be quantized by themselves: all of them, or for other layouts the matrix as a whole. */
export function independentParts(rows: number, { kind }: Quantizer, tilesPerPart: number): [number, number][] {
  const tiles = tilesPerColumn(rows);
  if (kind !== "twobit") return [[0, tiles]];
  return Array.from({ length: Math.ceil(tiles / tilesPerPart) }, (_, i) => [
    i * tilesPerPart,
    Math.min(tiles, (i + 1) * tilesPerPart),
  ]);
}

/**
 * Quantizes f32 [rows, channels], or one of its {@linkcode independentParts}.
 *
 * @throws {TypeError | RangeError} for a matrix that is empty, misshapen or not finite
 */
export function quantizeMatrix(
  weights: Float32Array,
  rows: number,
  channels: number,
  quantizer: Quantizer,
  input?: InputKnowledge,
  tiles?: readonly [number, number],
): StoredTensor {
  switch (quantizer.kind) {
    case "twobit":
      return { kind: "packed", tensor: quantizeTwobit(weights, rows, channels, quantizer.settings, input, tiles) };
    case "baseline":
      return { kind: "strips", tensor: quantizeBaseline(weights, rows, channels, quantizer.settings, input) };
    case "q2_k":
      return { kind: "q2_k", tensor: quantizeQ2k(weights, rows, channels, input?.feedback.diagonal) };
  }
}

/** Joins the stored parts of a matrix. */
export function joinStored(parts: readonly StoredTensor[]): StoredTensor {
  const packed = parts.flatMap((part) => part.kind === "packed" ? [part.tensor] : []);
  return packed.length === parts.length ? { kind: "packed", tensor: concatenateRows(packed) } : parts[0];
}

/** Decodes a stored matrix: f32 [rows, channels]. */
export function dequantizeStored(stored: StoredTensor): Float32Array<ArrayBuffer> {
  switch (stored.kind) {
    case "packed":
      return dequantize(stored.tensor);
    case "strips":
      return dequantizeStrips(stored.tensor);
    case "q2_k":
      return dequantizeQ2k(stored.tensor);
  }
}

/** Bytes of a stored matrix. */
export function storedBytes(stored: StoredTensor): number {
  switch (stored.kind) {
    case "packed":
      return Object.values(planeBytes(stored.tensor)).reduce((sum, bytes) => sum + bytes, 0);
    case "strips":
      return stripBytes(stored.tensor);
    case "q2_k":
      return stored.tensor.blocks.length;
  }
}
