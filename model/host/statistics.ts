// Means and their standard errors.

export interface Estimate {
  readonly value: number;
  readonly standardError: number;
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/**
 * Mean of all values, with the standard error that follows from the spread of the clusters' means: values within
 * a cluster (the tokens of a window) are correlated, so they don't count as independent. Clusters should be equally long.
 *
 * @throws {RangeError} for fewer than two clusters
 */
export function clusteredMean(clusters: readonly ArrayLike<number>[]): Estimate {
  if (clusters.length < 2) throw new RangeError(`${clusters.length} clusters given, must be at least 2`);
  const means = clusters.map(mean);
  const value = mean(means);
  const squares = means.reduce((sum, each) => sum + (each - value) ** 2, 0);
  return { value, standardError: Math.sqrt(squares / (means.length - 1) / means.length) };
}

/** Mean difference of paired values, with its standard error. */
export function pairedDifference(a: ArrayLike<number>, b: ArrayLike<number>): Estimate {
  return clusteredMean(Array.from(a, (value, i) => [value - b[i]]));
}

/**
 * Median with its standard error: half the distance between the values that lie half a root of their number below and
 * above the middle, which enclose the true median in at least two of three cases whatever the distribution. Values far
 * off count by their place alone.
 *
 * @throws {RangeError} for fewer than two values
 */
export function medianEstimate(values: ArrayLike<number>): Estimate {
  const { length } = values;
  if (length < 2) throw new RangeError(`${length} values given, must be at least 2`);
  const sorted = Array.from(values).sort((a, b) => a - b);
  const low = Math.max(0, Math.floor((length - 1 - Math.sqrt(length)) / 2));
  return { value: median(values), standardError: (sorted[length - 1 - low] - sorted[low]) / 2 };
}

/** A value and its error times a number that has none. */
export function scaled({ value, standardError }: Estimate, factor: number): Estimate {
  return { value: factor * value, standardError: factor * standardError };
}

/** e to the power of a value. */
export function exponentialOf({ value, standardError }: Estimate): Estimate {
  return scaled({ value: 1, standardError }, Math.exp(value));
}

/** A ratio of two values that were measured apart. */
export function ratioOf(a: Estimate, b: Estimate): Estimate {
  const value = a.value / b.value;
  return { value, standardError: value * Math.hypot(a.standardError / a.value, b.standardError / b.value) };
}

/** Median; the lower of the two in the middle where their number is even. */
export function median(values: ArrayLike<number>): number {
  return Array.from(values).sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
}
