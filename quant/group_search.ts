/**
 * The search for a group's scale code and zero code: every candidate is rounded and the one with the least error wins.
 *
 * @module
 */
import { BASE_ZEROS, GROUP_CHANNELS, REFINED_ZEROS, SCALE_CODES, ZERO_CODES } from "./format.ts";

/**
 * The weights of one group as error feedback sees them, in the order in which they are quantized.
 *
 * Weight k is rounded from start[k] - sum over j < k of q[j] * pull[j, k]; its error counts pivot[k]² times.
 * Without feedback inside the group, pull is zero and start the weights themselves.
 */
export interface GroupProblem {
  /** Weights in the group, at most 16. */
  size: number;
  /** f64 [16]. */
  readonly start: Float64Array;
  /** f64 [16]. */
  readonly pivot: Float64Array;
  /** f64 [16, 16], row j holds pull[j, k] for k > j; null where nothing is pulled. */
  pull: Float64Array | null;
  /** Bit k is set where weight k is an outlier and is stored exactly. */
  outliers: number;
}

/** A rounded group. */
export interface GroupRounding {
  scaleCode: number;
  zeroCode: number;
  error: number;
}

/** An empty problem. */
export function createGroupProblem(): GroupProblem {
  return {
    size: GROUP_CHANNELS,
    start: new Float64Array(GROUP_CHANNELS),
    pivot: new Float64Array(GROUP_CHANNELS).fill(1),
    pull: null,
    outliers: 0,
  };
}

const scratch = new Float64Array(GROUP_CHANNELS);

/**
 * Rounds a group with one scale and zero.
 *
 * @param scale scaleCode * d; 0 rounds every weight to 0
 * @param zero in units of one base code
 * @param limit gives up (returns Infinity) when the error reaches it
 * @param values f64 [16]: receives the rounded weights; an outlier's is its own unrounded value
 * @param codes receives the codes: 0..3, or 0..15 where refined
 * @returns the sum of pivot² x error²
 */
export function roundGroup(
  problem: GroupProblem,
  scale: number,
  zero: number,
  refined: boolean,
  limit: number,
  values?: Float64Array,
  codes?: Uint8Array,
): number {
  const { size, start, pivot, pull, outliers } = problem;
  const steps = refined ? 4 : 1;
  const maxCode = refined ? 15 : 3;
  const perStep = scale === 0 ? 0 : steps / scale;
  const offset = zero * steps + 0.5;
  for (let k = 0; k < size; k++) scratch[k] = start[k];
  let total = 0;
  for (let k = 0; k < size; k++) {
    const wanted = scratch[k];
    let code = Math.floor(wanted * perStep + offset);
    code = code < 0 ? 0 : code > maxCode ? maxCode : code;
    let value = (code / steps - zero) * scale;
    if ((outliers >> k) & 1) value = wanted;
    const error = (wanted - value) * pivot[k];
    total += error * error;
    if (total >= limit) return Infinity;
    if (pull !== null) {
      const row = k * GROUP_CHANNELS;
      for (let l = k + 1; l < size; l++) scratch[l] -= value * pull[row + l];
    }
    if (values) values[k] = value;
    if (codes) codes[k] = code;
  }
  return total;
}

/**
 * Finds the best scale code and zero code of a group under a given second-order scale, trying `likely` first and then
 * the codes around it.
 *
 * @param d second-order scale
 * @param likely scale code to start from
 * @param reach codes further than this from `likely` are not tried
 */
export function searchGroup(
  problem: GroupProblem,
  d: number,
  refined: boolean,
  likely: number,
  reach: number,
): GroupRounding {
  const zeros = refined ? REFINED_ZEROS : BASE_ZEROS;
  const best: GroupRounding = { scaleCode: 0, zeroCode: 0, error: roundGroup(problem, 0, 0, refined, Infinity) };
  for (let distance = 0; distance <= reach; distance++) {
    for (let side = distance === 0 ? 1 : -1; side <= 1; side += 2) {
      const scaleCode = likely + side * distance;
      if (scaleCode < 1 || scaleCode >= SCALE_CODES) continue;
      for (let zeroCode = 0; zeroCode < ZERO_CODES; zeroCode++) {
        const error = roundGroup(problem, scaleCode * d, zeros[zeroCode], refined, best.error);
        if (error < best.error) {
          best.scaleCode = scaleCode;
          best.zeroCode = zeroCode;
          best.error = error;
        }
      }
    }
  }
  return best;
}
