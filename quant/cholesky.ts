/**
 * Cholesky factorization in f64.
 *
 * @module
 */
import { dotTwoRuns } from "./dot.ts";

/**
 * Factors a symmetric positive definite matrix A = V Vᵀ with V upper triangular, from the last row upwards.
 *
 * Upper, because error feedback goes through the channels in ascending order and needs for each channel the
 * factor's entries above the diagonal, in its column. V is returned transposed, so that a column lies in a row.
 *
 * @param matrix f64 [size, size], row-major; not changed
 * @returns f64 [size, size]: row k holds column k of V in its first k + 1 elements, zeros after them;
 * undefined when the matrix isn't positive definite to working precision
 */
export function choleskyUpper(matrix: Float64Array, size: number): Float64Array<ArrayBuffer> | undefined {
  const columns = new Float64Array(size * size);
  // rows[i] = row i of V from element i on, filled from the right: kept apart so that the inner loop runs along memory.
  const rows = new Float64Array(size * size);
  const sums = new Float64Array(2);
  for (let k = size - 1; k >= 0; k--) {
    const rowK = k * size;
    let square = matrix[rowK + k];
    for (let j = k + 1; j < size; j++) square -= rows[rowK + j] * rows[rowK + j];
    // Rounding leaves about size * 2^-53 of the diagonal; what is below that is not a pivot.
    if (!(square > matrix[rowK + k] * size * 2 ** -53)) return undefined;
    const pivot = Math.sqrt(square);
    rows[rowK + k] = pivot;
    columns[rowK + k] = pivot;
    for (let i = 0; i < k; i += 2) {
      // The last row of an odd number goes beside itself.
      const last = Math.min(i + 1, k - 1);
      dotTwoRuns(rows, i * size + k + 1, last * size + k + 1, rows, rowK + k + 1, size - k - 1, sums, 0);
      for (let row = i; row <= last; row++) {
        const value = (matrix[row * size + k] - sums[row - i]) / pivot;
        rows[row * size + k] = value;
        columns[rowK + row] = value;
      }
    }
  }
  return columns;
}
