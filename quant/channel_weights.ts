// Channels that count differently where there is no error feedback: by the energy of their inputs.

/**
 * How much a squared error of each channel counts: the Hessian's diagonal over its mean; all channels alike where it is
 * zero. A channel that is never active doesn't count.
 *
 * @param diagonal f64 [channels]
 * @throws {RangeError} when it holds NaN, infinity or a negative number
 */
export function channelWeightsOf(diagonal: Float64Array): Float64Array<ArrayBuffer> {
  const bad = diagonal.findIndex((value) => !(value >= 0 && value < Infinity));
  if (bad >= 0) throw new RangeError(`Hessian holds ${diagonal[bad]} on its diagonal at ${bad}, must be finite`);
  const mean = diagonal.reduce((sum, value) => sum + value, 0) / diagonal.length;
  return Float64Array.from(diagonal, (value) => mean === 0 ? 1 : value / mean);
}
