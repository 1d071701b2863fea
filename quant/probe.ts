// Looking at each group by itself before anything is decided: what error it would have in 2 bits, in 4 bits, and in
// either without its most extreme weight.
import { GROUP_CHANNELS } from "./format.ts";
import {
  boundsOf,
  createGroupProblem,
  type GroupProblem,
  searchGroup,
  type SearchWindow,
  spanOf,
} from "./group_search.ts";

/** What one kind of storage would do to a group. */
export interface GroupProspect {
  /** Sum of squared errors. */
  readonly error: number;
  /** Scale that reaches it. */
  readonly scale: number;
}

/** What is known of a group. */
export interface GroupProbe {
  /** Highest minus lowest weight. */
  readonly range: number;
  /** Index within the group of the weight that lies furthest from the group's mean. */
  readonly extreme: number;
  readonly twoBit: GroupProspect;
  readonly fourBit: GroupProspect;
}

/** Range and prospects of a group of weights, which may be empty. `problem` is used up, so that many groups share one. */
export function probeGroup(weights: Float32Array, problem: GroupProblem = createGroupProblem()): GroupProbe {
  return {
    ...describe(weights),
    twoBit: prospect(problem, weights, false, 0),
    fourBit: prospect(problem, weights, true, 0),
  };
}

/** What a group would be without its most extreme weight; `problem` as for {@linkcode probeGroup}. */
export function probeWithoutExtreme(
  weights: Float32Array,
  { extreme }: GroupProbe,
  refined: boolean,
  problem: GroupProblem = createGroupProblem(),
): GroupProspect {
  return prospect(problem, weights, refined, 1 << extreme);
}

/** Highest minus lowest weight; 0 for no weights. */
export function rangeOf(weights: Float32Array): number {
  let min = Infinity;
  let max = -Infinity;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] < min) min = weights[i];
    if (weights[i] > max) max = weights[i];
  }
  return max < min ? 0 : max - min;
}

function describe(weights: Float32Array): Pick<GroupProbe, "range" | "extreme"> {
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  let extreme = 0;
  for (let i = 1; i < weights.length; i++) {
    if (Math.abs(weights[i] - mean) > Math.abs(weights[extreme] - mean)) extreme = i;
  }
  return { range: rangeOf(weights), extreme };
}

/** Scales that a probe tries, as multiples of 1/36 of the span; the best lies near 11/36, and 9/36 for a refined group. */
const TWO_BIT_WINDOW: SearchWindow = { firstScale: 9, lastScale: 13, zeroReach: 1 };
const FOUR_BIT_WINDOW: SearchWindow = { firstScale: 7, lastScale: 12, zeroReach: 2 };

function prospect(problem: GroupProblem, weights: Float32Array, refined: boolean, outliers: number): GroupProspect {
  problem.size = weights.length;
  problem.outliers = outliers;
  for (let i = 0; i < weights.length; i++) problem.start[i] = weights[i];
  const unit = spanOf(boundsOf(problem)) / 36;
  const { scaleCode, error } = searchGroup(problem, unit, refined, refined ? FOUR_BIT_WINDOW : TWO_BIT_WINDOW);
  return { error, scale: scaleCode * unit };
}

/** Group `group` of a row: its weights, fewer than 16 at the end of a row, none in the padding. */
export function groupOfRow(weights: Float32Array, row: number, channels: number, group: number): Float32Array {
  const start = Math.min(channels, group * GROUP_CHANNELS);
  const end = Math.min(channels, start + GROUP_CHANNELS);
  return weights.subarray(row * channels + start, row * channels + end);
}
