/**
 * The error of a quantized matrix as its inputs see it.
 *
 * @module
 */

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
