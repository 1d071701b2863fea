// The quantizer of llama.cpp's Q2_K.
import { NO_BITS } from "../bits.ts";
import { checkMatrix } from "../check.ts";
import { MAX_F16 } from "../float16.ts";
import { TILE_ROWS } from "../format.ts";
import { nearestCode } from "../grid.ts";
import { joinPlanes } from "../concatenate.ts";
import { type InputNeeds, type QuantizerKind, rowsOfTiles } from "../quantizer.ts";
import { decodeQ2kBlock, packQ2kBlock, Q2K_BLOCK, Q2K_BLOCKS, Q2K_BYTES, Q2K_CHANNELS } from "./q2k.ts";
import { fitQ2kBlock, fitSecondOrder } from "./q2k_search.ts";

/** A matrix in Q2_K. */
export interface Q2kTensor {
  readonly rows: number;
  /** Input channels, a multiple of 256. */
  readonly channels: number;
  /** [rows, channels / 256, 84]: super-blocks. */
  readonly blocks: Uint8Array<ArrayBuffer>;
}

/** Q2_K, as data; it has no feedback, and weighs channels by the Hessian's diagonal itself. */
export interface Q2kQuantizer extends InputNeeds {
  readonly kind: "q2_k";
}

export const Q2K: QuantizerKind<Q2kQuantizer, Q2kTensor> = {
  hasIndependentTiles: () => true,
  quantize(matrix, _quantizer, { diagonal, tiles }) {
    const { weights, rows, channels } = rowsOfTiles(matrix, tiles);
    return quantizeQ2k(weights, rows, channels, diagonal);
  },
  join: (parts) => ({
    rows: parts.reduce((sum, { rows }) => sum + rows, 0),
    channels: parts[0].channels,
    ...joinPlanes(parts, ["blocks"]),
  }),
  slice({ rows, channels, blocks }, first, end) {
    const [firstRow, endRow] = [first, end].map((tile) => Math.min(rows, tile * TILE_ROWS));
    const rowBytes = blocks.length / rows;
    return { rows: endRow - firstRow, channels, blocks: blocks.subarray(firstRow * rowBytes, endRow * rowBytes) };
  },
  dequantize: dequantizeQ2k,
  bits(rows, channels) {
    const superBlocks = rows * Math.ceil(channels / Q2K_CHANNELS);
    const codes = superBlocks * Q2K_BLOCKS * 4;
    return {
      ...NO_BITS,
      codes: superBlocks * Q2K_CHANNELS * 2,
      scaleCodes: codes,
      zeroCodes: codes,
      secondOrder: superBlocks * 32,
    };
  },
};

/**
 * Quantizes a matrix to Q2_K.
 *
 * @param weights f32 [rows, channels]
 * @param importance f64 [channels]: weight of a channel's squared error (by the Hessian's diagonal)
 * @throws {RangeError} when the channels aren't a multiple of 256 (llama.cpp stores such a matrix in another format), or
 * for a matrix that is empty, not finite or beyond the range of f16 scales
 * @throws {TypeError} when weights or importance don't fit the shape
 */
export function quantizeQ2k(
  weights: Float32Array,
  rows: number,
  channels: number,
  importance?: Float64Array,
): Q2kTensor {
  checkMatrix(weights, rows, channels);
  if (channels % Q2K_CHANNELS !== 0) {
    throw new RangeError(`matrix has ${channels} channels, must have a multiple of ${Q2K_CHANNELS} for Q2_K`);
  }
  if (importance && importance.length !== channels) {
    throw new TypeError(`importance is for ${importance.length} channels, must be for ${channels}`);
  }
  const count = weights.length / Q2K_CHANNELS;
  const blocks = new Uint8Array(count * Q2K_BYTES);
  for (let i = 0; i < count; i++) {
    const start = i * Q2K_CHANNELS;
    const channel = start % channels;
    quantizeSuperBlock(
      Float64Array.from(weights.subarray(start, start + Q2K_CHANNELS)),
      importance?.subarray(channel, channel + Q2K_CHANNELS),
      blocks,
      i * Q2K_BYTES,
    );
  }
  return { rows, channels, blocks };
}

function quantizeSuperBlock(
  values: Float64Array,
  importance: Float64Array | undefined,
  bytes: Uint8Array<ArrayBuffer>,
  at: number,
): void {
  const meanSquare = values.reduce((sum, value) => sum + value * value, 0) / Q2K_CHANNELS;
  const errorWeights = importance
    ? values.map((value, i) => importance[i] * Math.sqrt(meanSquare + value * value))
    : values.map(Math.abs);
  const part = (array: Float64Array, block: number) => array.subarray(block * Q2K_BLOCK, (block + 1) * Q2K_BLOCK);
  const fits = Array.from(
    { length: Q2K_BLOCKS },
    (_, block) => fitQ2kBlock(part(values, block), part(errorWeights, block), importance !== undefined),
  );
  const blockWeights = importance &&
    Float64Array.from(fits, (_, block) => part(errorWeights, block).reduce((sum, weight) => sum + weight, 0));
  const scales = fitSecondOrder(Float64Array.from(fits, ({ scale }) => scale), blockWeights);
  const mins = fitSecondOrder(Float64Array.from(fits, ({ min }) => min), blockWeights);
  const [d, dmin] = [toF16(scales.d), toF16(mins.d)];
  // Codes are chosen again for the scales and mins that are really stored.
  const codes = values.map((value, i) => {
    const block = Math.floor(i / Q2K_BLOCK);
    return nearestCode(value, -dmin * mins.codes[block], d * scales.codes[block], 3);
  });
  packQ2kBlock({ d, dmin, scaleCodes: scales.codes, minCodes: mins.codes, codes }, bytes, at);
}

function toF16(scale: number): number {
  if (scale > MAX_F16) throw new RangeError(`a super-block needs the scale ${scale}, must be at most ${MAX_F16}`);
  return Math.f16round(scale);
}

/** Decodes a matrix: f32 [rows, channels]. */
export function dequantizeQ2k({ rows, channels, blocks }: Q2kTensor): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * channels);
  for (let i = 0; i < out.length / Q2K_CHANNELS; i++) decodeQ2kBlock(blocks, i * Q2K_BYTES, out, i * Q2K_CHANNELS);
  return out;
}
