/**
 * What quantizing a matrix cost and lost.
 *
 * @module
 */
import { type BitTerms, packedBits } from "./bits.ts";
import { dequantizeCodes } from "./dequantize.ts";
import { GROUP_CHANNELS } from "./format.ts";
import { unpack } from "./pack.ts";
import type { PackedTensor } from "./packed_tensor.ts";
import { weightedError } from "./weighted_error.ts";

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
export function reportQuantization(
  weights: Float32Array,
  tensor: PackedTensor,
  hessian?: Float32Array | Float64Array,
): QuantizationReport {
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
