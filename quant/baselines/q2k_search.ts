// Finding the scales and mins of a Q2_K super-block as llama.cpp's quantizer does: for each block a search over
// stretched code ranges with a weighted least-squares fit, then 4-bit codes for the 16 scales and the 16 mins.
//
// Choice: without importance the weights are |w| and the error is absolute; with it (llama.cpp's importance matrix: the
// mean square of each input channel) they are importance * sqrt(mean w² + w²), the error is squared, the search is
// finer and the second-order scales are fitted by least squares too.
import { nearestCode } from "../grid.ts";

/** A search over code ranges: 3 is stretched by first, first + step, ..., `count` times. */
interface Search {
  readonly first: number;
  readonly step: number;
  readonly count: number;
  readonly squared: boolean;
}

const PLAIN: Search = { first: -0.5, step: 0.1, count: 16, squared: false };
const WEIGHTED: Search = { first: -0.9, step: 0.05, count: 37, squared: true };

const MAX_CODE = 3;

/** Highest scale or min code. */
const MAX_SECOND = 15;

/** A block's fit: w = scale * code - min, min 0 or more. */
export interface Q2kFit {
  readonly scale: number;
  readonly min: number;
}

/** Finds a block's scale and min. `weights` weigh the errors; `weighted` chooses the finer search. */
export function fitQ2kBlock(values: Float64Array, weights: Float64Array, weighted: boolean): Q2kFit {
  const { first, step, count, squared } = weighted ? WEIGHTED : PLAIN;
  let [lowest, highest] = [0, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (values[i] < lowest) lowest = values[i];
    if (values[i] > highest) highest = values[i];
  }
  if (highest === lowest) return { scale: 0, min: -lowest };
  let scale = (highest - lowest) / MAX_CODE;
  const codes = new Float64Array(values.length);
  setCodes(codes, values, lowest, scale);
  let best = errorOf(values, weights, codes, { scale, min: -lowest }, squared);
  for (let i = 0; i < count; i++) {
    // The best min so far is where the next range starts.
    setCodes(codes, values, lowest, (highest - lowest) / (MAX_CODE + first + step * i));
    const fit = leastSquares(values, weights, codes);
    if (!fit) continue;
    const error = errorOf(values, weights, codes, fit, squared);
    if (error >= best) continue;
    best = error;
    scale = fit.scale;
    lowest = -fit.min;
  }
  return { scale, min: -lowest };
}

function setCodes(codes: Float64Array, values: Float64Array, lowest: number, scale: number): void {
  for (let i = 0; i < values.length; i++) codes[i] = nearestCode(values[i], lowest, scale, MAX_CODE);
}

/** Scale and min with the least weighted squared error for given codes; none where all codes are equal. */
function leastSquares(values: Float64Array, weights: Float64Array, codes: Float64Array): Q2kFit | undefined {
  let [w, l, ll, x, xl] = [0, 0, 0, 0, 0];
  for (let i = 0; i < values.length; i++) {
    w += weights[i];
    l += weights[i] * codes[i];
    ll += weights[i] * codes[i] * codes[i];
    x += weights[i] * values[i];
    xl += weights[i] * values[i] * codes[i];
  }
  const determinant = w * ll - l * l;
  if (!(determinant > 0)) return undefined;
  const lowest = (ll * x - l * xl) / determinant;
  // A min can't be negative: then the range starts at 0.
  return lowest > 0 ? { scale: xl / ll, min: 0 } : { scale: (w * xl - l * x) / determinant, min: -lowest };
}

function errorOf(
  values: Float64Array,
  weights: Float64Array,
  codes: Float64Array,
  { scale, min }: Q2kFit,
  squared: boolean,
): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const difference = Math.abs(scale * codes[i] - min - values[i]);
    sum += weights[i] * (squared ? difference * difference : difference);
  }
  return sum;
}

/** A second-order scale and the 4-bit codes on it. */
export interface Q2kSecondOrder {
  readonly d: number;
  readonly codes: Float64Array;
}

/** Codes 0..15 for 16 scales or mins; with `weights`, searched for the least weighted squared error. */
export function fitSecondOrder(values: Float64Array, weights?: Float64Array): Q2kSecondOrder {
  const max = values.reduce((max, value) => Math.max(max, value), 0);
  if (max === 0) return { d: 0, codes: new Float64Array(values.length) };
  const codesAt = (d: number) => values.map((value) => nearestCode(value, 0, d, MAX_SECOND));
  const plain = { d: max / MAX_SECOND, codes: codesAt(max / MAX_SECOND) };
  if (!weights) return plain;
  let best = plain;
  let bestGain = -Infinity;
  for (let i = -4; i <= 4; i++) {
    const codes = codesAt(max / (MAX_SECOND + 0.1 * i));
    let [vc, cc] = [0, 0];
    for (let k = 0; k < values.length; k++) {
      vc += weights[k] * values[k] * codes[k];
      cc += weights[k] * codes[k] * codes[k];
    }
    if (!(cc > 0) || vc * vc / cc <= bestGain) continue;
    bestGain = vc * vc / cc;
    best = { d: vc / cc, codes };
  }
  return best;
}
