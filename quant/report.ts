// What quantizing a matrix cost and lost.
import { type BitTerms, packedBits } from "./bits.ts";
import { dequantizeCodes } from "./dequantize.ts";
import { GROUP_CHANNELS } from "./format.ts";
import { unpack } from "./pack.ts";
import type { PackedTensor } from "./packed_tensor.ts";

/** Bits and errors of a packed matrix. */
export interface QuantizationReport {
  /** Stored bits, term by term. */
  readonly bits: BitTerms;
  /** Squared error over squared weights, of all weights. */
  readonly relativeError: number;
  /** The same over the weights of 2-bit groups; 0 where there are none. */
  readonly relativeErrorTwoBit: number;
  /** And over the weights of refined groups. */
  readonly relativeErrorRefined: number;
  /**
   * Energy of the outputs' error over the outputs', for inputs that are known: (w - q) H (w - q)ᵀ over w H wᵀ, of a sample
   * of the rows. It says more of what a model loses than the squared errors, which count all channels alike.
   */
  readonly weightedError?: number;
}

/**
 * Compares a packed matrix with the weights it was made from.
 *
 * @param weights f32 [rows, channels]
 * @param hessian [channels, channels]: sum of x xᵀ over the inputs, where it is known
 */
export function reportQuantization(weights: Float32Array, tensor: PackedTensor, hessian?: Hessian): QuantizationReport {
  const { rows, channels, refineEvery, outlierChannel } = tensor;
  const codes = unpack(tensor);
  const decoded = dequantizeCodes(codes);
  const groups = codes.refined.length / rows;
  const error = [0, 0];
  const energy = [0, 0];
  for (let row = 0; row < rows; row++) {
    for (let channel = 0; channel < channels; channel++) {
      const at = row * channels + channel;
      const kind = codes.refined[row * groups + Math.floor(channel / GROUP_CHANNELS)];
      error[kind] += (weights[at] - decoded[at]) ** 2;
      energy[kind] += weights[at] ** 2;
    }
  }
  const ratio = (numerator: number, denominator: number) => denominator === 0 ? 0 : numerator / denominator;
  return {
    bits: packedBits(rows, channels, refineEvery, outlierChannel.length),
    relativeError: ratio(error[0] + error[1], energy[0] + energy[1]),
    relativeErrorTwoBit: ratio(error[0], energy[0]),
    relativeErrorRefined: ratio(error[1], energy[1]),
    ...(hessian && { weightedError: weightedError(weights, decoded, channels, hessian) }),
  };
}

/** The sum of x xᵀ over inputs x, [channels, channels], of which the upper triangle is read. */
export type Hessian = Float32Array | Float64Array;

/** Rows that are looked at: a matrix's rows err alike, and each costs channels² products. */
const SAMPLE_ROWS = 64;

/**
 * (w - q) H (w - q)ᵀ over w H wᵀ: the energy of what a matrix's outputs lose over theirs, of at most 64 rows far from each
 * other; 0 where there is none.
 *
 * @param weights f32 [rows, channels]
 * @param decoded f32 [rows, channels]: what they became
 */
export function weightedError(
  weights: Float32Array,
  decoded: Float32Array,
  channels: number,
  hessian: Hessian,
): number {
  const difference = new Float64Array(channels);
  const row = new Float64Array(channels);
  let [lost, all] = [0, 0];
  for (const index of sampleRows(weights.length / channels)) {
    for (let i = 0; i < channels; i++) {
      row[i] = weights[index * channels + i];
      difference[i] = row[i] - decoded[index * channels + i];
    }
    lost += outputEnergy(difference, hessian);
    all += outputEnergy(row, hessian);
  }
  return all === 0 ? 0 : lost / all;
}

/** Steps of the golden section, so that no period of the rows (heads, rotated pairs) is met again and again. */
function sampleRows(rows: number): number[] {
  if (rows <= SAMPLE_ROWS) return Array.from({ length: rows }, (_, i) => i);
  return Array.from({ length: SAMPLE_ROWS }, (_, i) => Math.floor(rows * ((i * 0.6180339887498949) % 1)));
}

/** v H vᵀ */
function outputEnergy(vector: Float64Array, hessian: Hessian): number {
  const channels = vector.length;
  let energy = 0;
  for (let i = 0; i < channels; i++) {
    let right = 0;
    for (let j = i + 1, at = i * channels + j; j < channels; j++, at++) right += hessian[at] * vector[j];
    energy += vector[i] * (hessian[i * channels + i] * vector[i] + 2 * right);
  }
  return energy;
}
