// Which group of each run is refined to 4 bits.
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, TILE_ROWS } from "./format.ts";
import { groupOfRow, type GroupProbe, rangeOf } from "./probe.ts";
import { createRandom } from "./random.ts";

/**
 * How the refined group of a run is picked: the one whose error falls most (`error`; `error_hessian`: times the
 * mean of the Hessian's diagonal over its channels), with the largest range (`range`)
 * or range² x Hessian (`range_hessian`), at random (`random`), or the same group for all rows of the matrix,
 * by the sum of range² x Hessian over its column strip (`strip`).
 *
 * Choice: the paper's figure picks whole column strips by "range x Hessian"; we read it as range² x the Hessian's diagonal,
 * the size of the error that the range causes. Strips here are one a run, where the paper takes any 25 % of all.
 */
export type PickRule = "error" | "error_hessian" | "range" | "range_hessian" | "random" | "strip";

/** What picks need besides the probes. */
export interface PickContext {
  readonly seed: number;
  /** f64 [channels]: the Hessian's diagonal; all 1 without it. */
  readonly importance?: Float64Array;
  /** f64 [groups]: sums of the strips over all rows of the matrix; by default over the probed rows. */
  readonly stripScores?: Float64Array<ArrayBuffer>;
}

/**
 * Picks the refined groups of a tile.
 *
 * @param probes [rows][groups]
 * @returns for each row, 1 for each refined group: exactly one in every run of `refineEvery` groups
 */
export function pickRefined(
  probes: readonly (readonly GroupProbe[])[],
  refineEvery: RefineEvery,
  rule: PickRule,
  { seed, importance, stripScores }: PickContext,
): Uint8Array<ArrayBuffer>[] {
  const groups = probes[0].length;
  if (refineEvery === "none") return probes.map(() => new Uint8Array(groups));
  const random = createRandom(seed);
  const energy = Float64Array.from({ length: groups }, (_, group) => meanOf(importance, group));
  const score = (probe: GroupProbe, group: number): number => {
    switch (rule) {
      case "error":
        return probe.twoBit.error - probe.fourBit.error;
      case "error_hessian":
        return (probe.twoBit.error - probe.fourBit.error) * energy[group];
      case "range":
        return probe.range;
      case "range_hessian":
      case "strip":
        return probe.range ** 2 * energy[group];
      case "random":
        return random.uniform();
    }
  };
  const scores = probes.map((row) => Float64Array.from(row, score));
  if (rule === "strip") {
    scores.fill(stripScores ?? energy.map((_, group) => scores.reduce((sum, row) => sum + row[group], 0)));
  }
  return scores.map((row) => pickHighest(row, refineEvery));
}

/** Rules that look at no errors of groups, so that picks follow from the weights alone. */
export function picksByWeights(rule: PickRule): boolean {
  return rule !== "error" && rule !== "error_hessian";
}

const UNPROBED = { error: 0, scale: 0 };

/**
 * Picks the refined groups of a matrix by a rule that {@linkcode picksByWeights}, as quantizing it tile by tile does.
 *
 * @param weights f32 [rows, channels]
 * @param importance f64 [channels]: the Hessian's diagonal; all 1 without it
 * @returns u32 [runs, rows]: the refined group of each run, counted from the run's start
 */
export function pickByWeights(
  weights: Float32Array,
  [rows, channels]: readonly [rows: number, channels: number],
  { refineEvery, pick, seed }: { readonly refineEvery: RefineEvery; readonly pick: PickRule; readonly seed: number },
  importance?: Float64Array,
): Uint32Array<ArrayBuffer> {
  if (refineEvery === "none") return new Uint32Array(0);
  const groups = groupsPerRow(channels);
  const stripScores = pick === "strip" ? sumStrips(weights, rows, groups, importance) : undefined;
  const picks = new Uint32Array(Math.ceil(groups / refineEvery) * rows);
  for (let first = 0; first < rows; first += TILE_ROWS) {
    const probes = Array.from(
      { length: Math.min(TILE_ROWS, rows - first) },
      (_, r) =>
        Array.from({ length: groups }, (_, group): GroupProbe => {
          const range = pick.startsWith("range") ? rangeOf(groupOfRow(weights, first + r, channels, group)) : 0;
          return { range, extreme: 0, twoBit: UNPROBED, fourBit: UNPROBED };
        }),
    );
    const refined = pickRefined(probes, refineEvery, pick, {
      seed: seed + first / TILE_ROWS,
      ...(importance && { importance }),
      ...(stripScores && { stripScores }),
    });
    for (const [r, flags] of refined.entries()) {
      flags.forEach((flag, group) => {
        if (flag === 1) picks[Math.floor(group / refineEvery) * rows + first + r] = group % refineEvery;
      });
    }
  }
  return picks;
}

function pickHighest(scores: Float64Array, run: number): Uint8Array<ArrayBuffer> {
  const picked = new Uint8Array(scores.length);
  for (let start = 0; start < scores.length; start += run) {
    const end = Math.min(scores.length, start + run);
    let best = start;
    for (let group = start + 1; group < end; group++) if (scores[group] > scores[best]) best = group;
    picked[best] = 1;
  }
  return picked;
}

/** Sum over all rows of range² x importance of each group column: f64 [groups], for the rule `strip`. */
export function sumStrips(
  weights: Float32Array,
  rows: number,
  groups: number,
  importance?: Float64Array,
): Float64Array<ArrayBuffer> {
  const channels = weights.length / rows;
  return Float64Array.from({ length: groups }, (_, group) => {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += rangeOf(groupOfRow(weights, row, channels, group)) ** 2;
    return sum * meanOf(importance, group);
  });
}

/** Mean of the importance over a group's channels. */
export function meanOf(importance: Float64Array | undefined, group: number): number {
  if (!importance) return 1;
  const part = importance.subarray(group * GROUP_CHANNELS, (group + 1) * GROUP_CHANNELS);
  return part.length === 0 ? 0 : part.reduce((sum, value) => sum + value, 0) / part.length;
}
