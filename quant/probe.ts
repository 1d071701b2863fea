/**
 * Looking at each group by itself before anything is decided: what error it would have in 2 bits, in 4 bits, and in
 * either without its most extreme weight.
 *
 * @module
 */
import { GROUP_CHANNELS, SCALE_CODES } from "./format.ts";
import { createGroupProblem, searchGroup } from "./group_search.ts";

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
  /** In 2 bits. */
  readonly twoBit: GroupProspect;
  /** In 4 bits. */
  readonly fourBit: GroupProspect;
}

const problem = createGroupProblem();

/** Range and prospects of a group of weights, which may be empty. */
export function probeGroup(weights: Float32Array): GroupProbe {
  const { range, span, extreme } = describe(weights);
  return {
    range,
    extreme,
    twoBit: prospect(weights, span, false, 0),
    fourBit: prospect(weights, span, true, 0),
  };
}

/** What a group would be without its most extreme weight. */
export function probeWithoutExtreme(weights: Float32Array, { extreme }: GroupProbe, refined: boolean): GroupProspect {
  const { span } = describe(weights.filter((_, i) => i !== extreme));
  return prospect(weights, span, refined, 1 << extreme);
}

/** Largest code distance from zero that a 2-bit group can express: codes 0..3, zeros 0.625..2.375. */
const REACH = 2.375;

/** Range; the range that the codes must span, which is more where all weights lie on one side of 0; extreme weight. */
function describe(weights: Float32Array): { range: number; span: number; extreme: number } {
  if (weights.length === 0) return { range: 0, span: 0, extreme: 0 };
  let min = Infinity;
  let max = -Infinity;
  let sum = 0;
  for (const weight of weights) {
    if (weight < min) min = weight;
    if (weight > max) max = weight;
    sum += weight;
  }
  const mean = sum / weights.length;
  let extreme = 0;
  for (let i = 1; i < weights.length; i++) {
    if (Math.abs(weights[i] - mean) > Math.abs(weights[extreme] - mean)) extreme = i;
  }
  const range = max - min;
  return { range, span: Math.max(range, (Math.max(max, -min) * 3) / REACH), extreme };
}

/** Searches scales from 1/36 to 15/36 of the span: the best of a 2-bit group lies near 11/36, of a 4-bit one near 9/36. */
function prospect(weights: Float32Array, span: number, refined: boolean, outliers: number): GroupProspect {
  problem.size = weights.length;
  problem.outliers = outliers;
  for (let i = 0; i < weights.length; i++) problem.start[i] = weights[i];
  const unit = span / 36;
  const { scaleCode, error } = searchGroup(problem, unit, refined, refined ? 9 : 11, SCALE_CODES);
  return { error, scale: scaleCode * unit };
}

/** Group `group` of a row: its weights, fewer than 16 at the end of a row, none in the padding. */
export function groupOfRow(weights: Float32Array, row: number, channels: number, group: number): Float32Array {
  const start = Math.min(channels, group * GROUP_CHANNELS);
  const end = Math.min(channels, start + GROUP_CHANNELS);
  return weights.subarray(row * channels + start, row * channels + end);
}
