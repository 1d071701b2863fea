/**
 * Checks of what callers hand in.
 *
 * @module
 */

/**
 * Checks a weight matrix.
 *
 * @throws {TypeError} when the array's length doesn't fit the shape
 * @throws {RangeError} when the matrix is empty or a weight is NaN or infinite
 */
export function checkMatrix(weights: Float32Array, rows: number, channels: number): void {
  if (rows < 1 || channels < 1) throw new RangeError(`matrix is ${rows} x ${channels}, must not be empty`);
  if (weights.length !== rows * channels) {
    throw new TypeError(`matrix of ${rows} x ${channels} has ${weights.length} weights, must have ${rows * channels}`);
  }
  const bad = weights.findIndex((weight) => !Number.isFinite(weight));
  if (bad >= 0) {
    throw new RangeError(
      `weight of row ${Math.floor(bad / channels)}, channel ${bad % channels} is ${weights[bad]}, must be finite`,
    );
  }
}
