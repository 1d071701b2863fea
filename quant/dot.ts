// Dot products of runs of f64 arrays.

/**
 * Sums over i < length of a[firstStart + i] * b[bStart + i], and of a[secondStart + i] * b[bStart + i], in four
 * independent sums each, which keep the processor busy; b is read once.
 *
 * @param sums gets the two, at `at` and behind it
 */
export function dotTwoRuns(
  a: Float64Array,
  firstStart: number,
  secondStart: number,
  b: Float64Array,
  bStart: number,
  length: number,
  sums: Float64Array,
  at: number,
): void {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let t0 = 0;
  let t1 = 0;
  let t2 = 0;
  let t3 = 0;
  let i = 0;
  for (; i + 3 < length; i += 4) {
    const b0 = b[bStart + i];
    const b1 = b[bStart + i + 1];
    const b2 = b[bStart + i + 2];
    const b3 = b[bStart + i + 3];
    s0 += a[firstStart + i] * b0;
    t0 += a[secondStart + i] * b0;
    s1 += a[firstStart + i + 1] * b1;
    t1 += a[secondStart + i + 1] * b1;
    s2 += a[firstStart + i + 2] * b2;
    t2 += a[secondStart + i + 2] * b2;
    s3 += a[firstStart + i + 3] * b3;
    t3 += a[secondStart + i + 3] * b3;
  }
  for (; i < length; i++) {
    s0 += a[firstStart + i] * b[bStart + i];
    t0 += a[secondStart + i] * b[bStart + i];
  }
  sums[at] = s0 + s1 + s2 + s3;
  sums[at + 1] = t0 + t1 + t2 + t3;
}
