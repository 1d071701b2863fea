// The search for a group's scale code and zero code: every candidate is rounded and the one with the least error wins.
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
  /** f64 [16]: weights as {@linkcode roundGroup} rounded them last; an outlier's is its own unrounded value. */
  readonly values: Float64Array;
  /** [16]: their codes: 0..3, or 0..15 where refined. */
  readonly codes: Uint8Array;
  /** f64 [16]: scratch. */
  readonly scratch: Float64Array;
}

export interface GroupRounding {
  readonly scaleCode: number;
  readonly zeroCode: number;
  readonly error: number;
}

/** An empty problem, with or without pull. */
export function createGroupProblem(isPulled = false): GroupProblem {
  return {
    size: GROUP_CHANNELS,
    start: new Float64Array(GROUP_CHANNELS),
    pivot: new Float64Array(GROUP_CHANNELS).fill(1),
    pull: isPulled ? new Float64Array(GROUP_CHANNELS * GROUP_CHANNELS) : null,
    outliers: 0,
    values: new Float64Array(GROUP_CHANNELS),
    codes: new Uint8Array(GROUP_CHANNELS),
    scratch: new Float64Array(GROUP_CHANNELS),
  };
}

/**
 * Rounds a group with one scale and zero; without a limit, into the problem's values and codes.
 *
 * @param scale scaleCode * d; 0 rounds every weight to 0
 * @param zero in units of one base code
 * @param limit gives up (returns Infinity) when the error reaches it; Infinity where the rounding is to be kept
 * @returns the sum of pivot² x error²
 */
export function roundGroup(
  problem: GroupProblem,
  scale: number,
  zero: number,
  refined: boolean,
  limit: number,
): number {
  const { size, start, pivot, pull, outliers, scratch: rounded } = problem;
  const steps = refined ? 4 : 1;
  const perCode = 1 / steps;
  const maxCode = refined ? 15 : 3;
  const perStep = scale === 0 ? 0 : steps / scale;
  const offset = zero * steps + 0.5;
  const keeps = limit === Infinity;
  let total = 0;
  for (let k = 0; k < size; k++) {
    let wanted = start[k];
    // Most candidates are given up after a few weights, so what they pull is summed where it is needed.
    if (pull !== null) { for (let j = 0; j < k; j++) wanted -= rounded[j] * pull[j * GROUP_CHANNELS + k]; }
    let code = Math.floor(wanted * perStep + offset);
    code = code < 0 ? 0 : code > maxCode ? maxCode : code;
    let value = (code * perCode - zero) * scale;
    if ((outliers >> k) & 1) value = wanted;
    const error = (wanted - value) * pivot[k];
    total += error * error;
    if (total >= limit) return Infinity;
    rounded[k] = value;
    if (!keeps) continue;
    problem.values[k] = value;
    problem.codes[k] = code;
  }
  return total;
}

/** Which candidates a search tries. */
export interface SearchWindow {
  /** Scale codes, from 1 on; the code 0 is always tried. */
  readonly firstScale: number;
  readonly lastScale: number;
  /** Zero codes that are tried on either side of the one that puts the group's middle amid the codes. */
  readonly zeroReach: number;
}

/** All scale and zero codes. */
const ALL_CODES: SearchWindow = { firstScale: 1, lastScale: SCALE_CODES - 1, zeroReach: ZERO_CODES - 1 };

/**
 * Tries all codes, the likely ones first (scales from 0.7 to 1.05 of the one that just covers the group, the middle zero
 * code and its neighbours), so that most of the others are given up after a few weights. Trying only the likely ones
 * would cost 1.5 % more error.
 */
export function searchAllCodes(problem: GroupProblem, d: number, refined: boolean): GroupRounding {
  const search = startSearch(problem, d, refined);
  const covering = d === 0 ? 0 : spanOf(search.bounds) / ((refined ? 3.75 : 3) * d);
  const lastScale = Math.min(SCALE_CODES - 1, Math.ceil(1.05 * covering) + 1);
  const firstScale = Math.max(1, Math.min(Math.ceil(0.7 * covering), lastScale));
  const likely = { firstScale, lastScale, zeroReach: 1 };
  const best = tryCodes(search, likely, roundToZero(problem, refined));
  return tryCodes(search, ALL_CODES, best, likely);
}

/** Finds the best of some scale codes and zero codes of a group under a given second-order scale d. */
export function searchGroup(problem: GroupProblem, d: number, refined: boolean, window: SearchWindow): GroupRounding {
  return tryCodes(startSearch(problem, d, refined), window, roundToZero(problem, refined));
}

/** The scale code 0, which makes the group zero: the candidate that others must beat. */
function roundToZero(problem: GroupProblem, refined: boolean): GroupRounding {
  return { scaleCode: 0, zeroCode: 0, error: roundGroup(problem, 0, 0, refined, Infinity) };
}

/** A group whose codes are searched under a second-order scale d. */
interface Search {
  readonly problem: GroupProblem;
  readonly d: number;
  readonly refined: boolean;
  readonly bounds: Bounds;
  /** {@linkcode slackOf} of the lowest and of the highest weight. */
  readonly slackLowest: number;
  readonly slackHighest: number;
}

function startSearch(problem: GroupProblem, d: number, refined: boolean): Search {
  const bounds = boundsOf(problem);
  const [slackLowest, slackHighest] = [slackOf(problem, bounds.lowest), slackOf(problem, bounds.highest)];
  return { problem, d, refined, bounds, slackLowest, slackHighest };
}

/**
 * How many times a group's error the clipping of weight k must exceed to show that it reaches that error: 1 without pull.
 *
 * The errors e[j] of those before move the weight by the sum of e[j] m[j]. So its distance D from the grid is at most
 * |e[k]| + |sum|, and by Cauchy's inequality (D pivot[k])² at most the group's error, which is the sum of (e[j] pivot[j])²,
 * times 1 + pivot[k]² * sum of (m[j] / pivot[j])². A little more is for rounding.
 */
function slackOf({ pivot, pull, scratch: moves }: GroupProblem, k: number): number {
  if (pull === null) return 1;
  let sum = 0;
  for (let j = 0; j < k; j++) moves[j] = pull[j * GROUP_CHANNELS + k];
  for (let j = k - 1; j >= 0; j--) {
    sum += (moves[j] / pivot[j]) ** 2;
    for (let i = 0; i < j; i++) moves[i] -= moves[j] * pull[i * GROUP_CHANNELS + j];
  }
  return (1 + sum * pivot[k] ** 2) * (1 + 2 ** -20);
}

/** Tries the codes of a window against the best known, but for those that were tried in another window. */
function tryCodes(search: Search, window: SearchWindow, known: GroupRounding, tried?: SearchWindow): GroupRounding {
  const { problem, d, refined } = search;
  const zeros = zerosOf(refined);
  let best = known;
  if (d === 0) return best;
  const most = tried ? Infinity : mostOf(search, window);
  for (let scaleCode = window.firstScale; scaleCode <= window.lastScale; scaleCode++) {
    const scale = scaleCode * d;
    const centred = centredZero(search, scale);
    const done = tried && scaleCode >= tried.firstScale && scaleCode <= tried.lastScale ? tried.zeroReach : -1;
    const lastZero = Math.min(ZERO_CODES - 1, centred + window.zeroReach);
    for (let zeroCode = Math.max(0, centred - window.zeroReach); zeroCode <= lastZero; zeroCode++) {
      if (Math.abs(zeroCode - centred) <= done) continue;
      const limit = Math.min(best.error, most);
      if (clips(search, scale, zeros[zeroCode], limit)) continue;
      const error = roundGroup(problem, scale, zeros[zeroCode], refined, limit);
      if (error < best.error) best = { scaleCode, zeroCode, error };
    }
  }
  return best;
}

/**
 * A little more than the error of a window's middle candidate, which is a good one: what exceeds it can't win, wherever
 * in the order it comes, and needn't be added up.
 */
function mostOf(search: Search, { firstScale, lastScale }: SearchWindow): number {
  const { problem, d, refined } = search;
  const scale = Math.floor((firstScale + lastScale) / 2) * d;
  const zero = zerosOf(refined)[centredZero(search, scale)];
  return roundGroup(problem, scale, zero, refined, Infinity) * (1 + 2 ** -40) + Number.MIN_VALUE;
}

/** Whether the lowest or the highest weight is so far from the grid that the group's error reaches a limit. */
function clips(search: Search, scale: number, zero: number, limit: number): boolean {
  const { problem: { pivot }, refined, bounds: { min, max, lowest, highest }, slackLowest, slackHighest } = search;
  const above = max - ((refined ? 3.75 : 3) - zero) * scale;
  const below = -zero * scale - min;
  return (above > 0 && (above * pivot[highest]) ** 2 >= limit * slackHighest) ||
    (below > 0 && (below * pivot[lowest]) ** 2 >= limit * slackLowest);
}

/** Largest distance from 0, in base codes, that a 2-bit group can express: codes 0..3, zeros 0.625..2.375. */
const ZERO_REACH = 2.375;

/** Lowest and highest weight of a group. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
  /** Which they are. */
  readonly lowest: number;
  readonly highest: number;
}

/** What the codes of a group must span: its range, or more where all weights lie on one side of 0. */
export function spanOf({ min, max }: Pick<Bounds, "min" | "max">): number {
  return Math.max(max - min, (Math.max(max, -min) * 3) / ZERO_REACH);
}

/** Lowest and highest weight as they would be if none were rounded, outliers aside; 0 and 0 where nothing is left. */
export function boundsOf({ size, start, pull, outliers, scratch: rest }: GroupProblem): Bounds {
  let [min, max, lowest, highest] = [Infinity, -Infinity, 0, 0];
  for (let k = 0; k < size; k++) rest[k] = start[k];
  for (let k = 0; k < size; k++) {
    if (pull !== null) {
      for (let l = k + 1; l < size; l++) rest[l] -= rest[k] * pull[k * GROUP_CHANNELS + l];
    }
    if ((outliers >> k) & 1) continue;
    if (rest[k] < min) [min, lowest] = [rest[k], k];
    if (rest[k] > max) [max, highest] = [rest[k], k];
  }
  return max < min ? { min: 0, max: 0, lowest, highest } : { min, max, lowest, highest };
}

function zerosOf(refined: boolean): readonly number[] {
  return refined ? REFINED_ZEROS : BASE_ZEROS;
}

/** Code of the zero that puts the group's middle amid the codes. */
function centredZero({ refined, bounds: { min, max } }: Search, scale: number): number {
  const zeros = zerosOf(refined);
  const wanted = (refined ? 1.875 : 1.5) - (min + max) / 2 / scale;
  const code = Math.floor((wanted - zeros[0]) / (zeros[1] - zeros[0]) + 0.5);
  return Math.min(ZERO_CODES - 1, Math.max(0, code));
}
