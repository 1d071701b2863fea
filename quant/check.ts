// Checks of what callers hand in.

/** Index of the first value that is NaN or infinite, -1 where there is none. */
export function findNotFinite(values: Float32Array): number {
  // value - value is 0 for all others: one sum tells, several times as fast as asking for each of millions of values.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] - values[i];
  return sum === 0 ? -1 : values.findIndex((value) => !Number.isFinite(value));
}

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
  const bad = findNotFinite(weights);
  if (bad >= 0) {
    throw new RangeError(
      `weight of row ${Math.floor(bad / channels)}, channel ${bad % channels} is ${weights[bad]}, must be finite`,
    );
  }
}
