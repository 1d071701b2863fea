// CPU reference of the fused matrix-vector kernels, which `async` checks too: the same product in f64, with a bound for the kernels' error.
import { BASE_ZEROS, GROUP_CHANNELS, groupsPerRow, REFINED_ZEROS, TILE_ROWS } from "../../quant/format.ts";
import { unpack } from "../../quant/pack.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import type { BoundedProduct } from "../matrix/bounded_product.ts";
import { type ActivationBits, activationsOf } from "./pack_activations.ts";

/** Roundings in f32 that a term of the sum can pass: scale, difference, sums over groups, lanes and columns. */
const ROUNDINGS = 40;

/**
 * Of 2^-24 times d: what the scale of a group can be off where fma rounds its product, as WGSL allows. The kernels take
 * scaleCode * d as (1 + scaleCode / 512) 512 d - 512 d, for a refined group twice.
 */
const SCALE_ROUNDINGS = 1024;

/**
 * y = W x from packed weights and packed activations.
 *
 * The bound follows the kernels' arithmetic: codes times activations are summed exactly; the zero's share of a group is
 * rounded to at most two steps of its activations, scales by {@linkcode SCALE_ROUNDINGS}; everything after is ordinary
 * f32, so each term carries at most {@linkcode ROUNDINGS} relative errors of 2^-24. Codes and zeros count by
 * themselves, not by their difference.
 *
 * @param activations as from `packActivations`
 */
export function fusedGemvOnCpu(
  tensor: PackedTensor,
  activations: Uint32Array<ArrayBuffer>,
  activationBits?: ActivationBits,
): BoundedProduct {
  const { rows, channels } = tensor;
  const { values, steps } = activationsOf(activations, channels, activationBits);
  const { codes, scaleCodes, zeroCodes, refined, tileScale, outliers } = unpack(tensor);
  const groups = groupsPerRow(channels);
  const y = new Float64Array(rows);
  const bound = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let magnitude = 0;
    let rounded = 0;
    for (let group = 0; group < groups; group++) {
      const index = row * groups + group;
      const d = tileScale[Math.floor(row / TILE_ROWS) * groups + group];
      const scale = scaleCodes[index] * d;
      const zero = (refined[index] === 1 ? REFINED_ZEROS : BASE_ZEROS)[zeroCodes[index]];
      for (let c = group * GROUP_CHANNELS; c < Math.min(channels, (group + 1) * GROUP_CHANNELS); c++) {
        const code = codes[row * groups * GROUP_CHANNELS + c] / (refined[index] === 1 ? 4 : 1);
        y[row] += (code - zero) * scale * values[c];
        magnitude += (code + zero) * Math.abs(scale * values[c]);
        rounded += SCALE_ROUNDINGS * 2 ** -24 * (code + zero) * Math.abs(d * values[c]);
      }
      rounded += 2 * Math.abs(scale) * steps[group];
    }
    for (let i = outliers.start[row]; i < outliers.start[row + 1]; i++) {
      const term = outliers.residual[i] * values[outliers.channel[i]];
      y[row] += term;
      magnitude += Math.abs(term);
    }
    bound[row] = rounded + ROUNDINGS * 2 ** -24 * magnitude;
  }
  return { y, bound };
}
