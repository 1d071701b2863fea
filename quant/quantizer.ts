// What a quantizer is. Each is one file that says its settings, how it quantizes, and what can be done with what it
// stores; quantize.ts has the table of them.
import type { BitTerms } from "./bits.ts";
import type { FeedbackSettings } from "./error_feedback.ts";
import { TILE_ROWS, tilesPerColumn } from "./format.ts";
import type { InputKnowledge } from "./input_knowledge.ts";

/** What every quantizer may ask to know of a matrix's input. */
export interface InputNeeds {
  /** Error feedback's settings; without them no Hessian is needed. */
  readonly feedback?: FeedbackSettings;
  /** Whether channels count by the energy of their inputs (channel_weights.ts), in place of feedback. */
  readonly weighsChannels?: boolean;
  /** Whether targets are corrected for what the earlier layers' quantization changed (target.ts). */
  readonly correctTarget?: boolean;
}

/** Whether a quantizer wants to know of the input at all, which takes calibration text. */
export function measuresInput({ feedback, weighsChannels }: InputNeeds): boolean {
  return feedback !== undefined || weighsChannels === true;
}

export interface Matrix {
  /** f32 [rows, channels]. */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly channels: number;
}

/** The rows of some tiles, by default of all, as a matrix. @throws {RangeError} for tiles that it doesn't have */
export function rowsOfTiles({ weights, rows, channels }: Matrix, tiles?: Part["tiles"]): Matrix {
  const [first, last] = tiles ?? [0, tilesPerColumn(rows)];
  if (!(0 <= first && first < last && last <= tilesPerColumn(rows))) {
    throw new RangeError(`tiles are ${first}..${last}, must lie within 0..${tilesPerColumn(rows)}`);
  }
  const [firstRow, endRow] = [first * TILE_ROWS, Math.min(rows, last * TILE_ROWS)];
  return { weights: weights.subarray(firstRow * channels, endRow * channels), rows: endRow - firstRow, channels };
}

/** What is known of a matrix's input, and which part of the matrix is wanted. */
export interface Part extends Partial<InputKnowledge> {
  /** f64 [channels]: the Hessian's diagonal, for quantizers that weigh channels. */
  readonly diagonal?: Float64Array;
  /** First tile and last + 1; all of them by default. Others only where tiles are independent. */
  readonly tiles?: readonly [number, number];
}

/**
 * What a kind of quantizer does.
 *
 * @template Q a quantizer of this kind as data, which goes to workers: its `kind`, its settings and {@linkcode InputNeeds}
 * @template T what it stores of a matrix: its shape, and arrays of all that counts as its bytes
 */
export interface QuantizerKind<Q, T> {
  /** Whether any range of tiles can be quantized by itself and joined with the others. */
  hasIndependentTiles(quantizer: Q): boolean;
  /** Quantizes a matrix. @throws {TypeError | RangeError} for one that is empty, misshapen or not finite */
  quantize(matrix: Matrix, quantizer: Q, part: Part): T;
  join(parts: readonly T[]): T;
  /** Tiles `first` .. `end` - 1 as a matrix, in the same memory; `first` is even. */
  slice(tensor: T, first: number, end: number): T;
  /** Decodes a matrix: f32 [rows, channels]. */
  dequantize(tensor: T): Float32Array<ArrayBuffer>;
  /** Bits of a matrix, from its shape alone. */
  bits(rows: number, channels: number, quantizer: Q): BitTerms;
}
