// CPU references of the three-pass product's decoding kernels, with bounds for their errors.
import { BASE_ZEROS, GROUP_CHANNELS, groupsPerRow, REFINED_ZEROS, TILE_ROWS } from "../../../quant/format.ts";
import { unpack } from "../../../quant/pack.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

/** What rounding a value to f16 can change: half a unit in the last place, of subnormal numbers' at least. */
function halfUnit(value: number): number {
  return 2 ** -11 * Math.abs(value) + 2 ** -25;
}

/**
 * The scales of all groups, [rows, groups].
 *
 * A kernel takes scaleCode * d as (1 + scaleCode / 512) 512 d - 512 d, whose product, at most 528 |d|, is rounded to f32
 * by half a unit where fma rounds it, and then rounds the scale to f16.
 */
export function decodeScalesOnCpu({ rows, channels, ...planes }: PackedTensor): BoundedProduct {
  const { scaleCodes, tileScale } = unpack({ rows, channels, ...planes });
  const groups = groupsPerRow(channels);
  const y = new Float64Array(rows * groups);
  const bound = new Float64Array(rows * groups);
  for (let i = 0; i < y.length; i++) {
    const d = tileScale[Math.floor(i / groups / TILE_ROWS) * groups + i % groups];
    y[i] = scaleCodes[i] * d;
    bound[i] = halfUnit(y[i]) + 528 * Math.abs(d) * 2 ** -24;
  }
  return { y, bound };
}

/**
 * The weights that follow from decoded scales, without outliers, [rows, padded channels]. (code - zero) is exact in f32;
 * its product with the scale is rounded to f32 and then to f16.
 *
 * @param scales f16 [rows, groups], with the rounding that they have
 */
export function decodeWeightsOnCpu(tensor: PackedTensor, scales: Float16Array): BoundedProduct {
  const { codes, zeroCodes, refined } = unpack(tensor);
  const y = new Float64Array(codes.length);
  for (let i = 0; i < y.length; i++) {
    const group = Math.floor(i / GROUP_CHANNELS);
    const isRefined = refined[group] === 1;
    const zero = (isRefined ? REFINED_ZEROS : BASE_ZEROS)[zeroCodes[group]];
    y[i] = (codes[i] / (isRefined ? 4 : 1) - zero) * scales[group];
  }
  return { y, bound: y.map((value) => halfUnit(value) + Math.abs(value) * 2 ** -24) };
}
