// The same content as a packed tensor, one array element a code: what quantizers write and tests read.
import type { PackedShape } from "./packed_tensor.ts";

/** Outliers of a matrix in compressed sparse row form. */
export interface Outliers {
  /** Outliers of row r are start[r] .. start[r + 1] - 1; empty where the matrix has none. */
  readonly start: Uint32Array<ArrayBuffer>;
  /** Input channels, ascending within a row. */
  readonly channel: Uint16Array<ArrayBuffer>;
  /** What is added to the decoded weight. */
  readonly residual: Float16Array<ArrayBuffer>;
}

/** Codes of a matrix, padded to whole half blocks of 64 channels. */
export interface UnpackedTensor extends PackedShape {
  /** [rows, groups * 16]: 0..3, or 4 * base + refine = 0..15 in a refined group. */
  readonly codes: Uint8Array<ArrayBuffer>;
  /** [rows, groups]: 0..15. */
  readonly scaleCodes: Uint8Array<ArrayBuffer>;
  /** [rows, groups]: 0..7, an index of BASE_ZEROS or, for a refined group, REFINED_ZEROS. */
  readonly zeroCodes: Uint8Array<ArrayBuffer>;
  /** [rows, groups]: 1 for a refined group. */
  readonly refined: Uint8Array<ArrayBuffer>;
  /** [tiles, groups]: second-order scale. */
  readonly tileScale: Float16Array<ArrayBuffer>;
  /** Outliers of the matrix. */
  readonly outliers: Outliers;
}

export const NO_OUTLIERS: Outliers = {
  start: new Uint32Array(0),
  channel: new Uint16Array(0),
  residual: new Float16Array(0),
};
