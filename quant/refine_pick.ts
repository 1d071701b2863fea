/**
 * Which group of each run is refined to 4 bits.
 *
 * @module
 */
import { GROUP_CHANNELS, type RefineEvery } from "./format.ts";
import type { GroupProbe } from "./probe.ts";
import { createRandom } from "./random.ts";

/**
 * How the refined group of a run is picked: the one whose error falls most (`error`), with the largest range (`range`)
 * or range² x Hessian (`range_hessian`), at random (`random`), or, as in the paper's figure, the same group for all rows
 * of a tile, by the sum of range² x Hessian (`strip`).
 */
export type PickRule = "error" | "range" | "range_hessian" | "random" | "strip";

/** What picks need besides the probes. */
export interface PickContext {
  /** Seed of random picks. */
  readonly seed: number;
  /** f64 [channels]: the Hessian's diagonal; all 1 without it. */
  readonly importance?: Float64Array;
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
  { seed, importance }: PickContext,
): Uint8Array<ArrayBuffer>[] {
  const groups = probes[0].length;
  if (refineEvery === "none") return probes.map(() => new Uint8Array(groups));
  const random = createRandom(seed);
  const energy = Float64Array.from({ length: groups }, (_, group) => meanOf(importance, group));
  const score = (probe: GroupProbe, group: number): number => {
    switch (rule) {
      case "error":
        return probe.twoBit.error - probe.fourBit.error;
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
    const sums = Float64Array.from(energy, (_, group) => scores.reduce((sum, row) => sum + row[group], 0));
    scores.fill(sums);
  }
  return scores.map((row) => pickHighest(row, refineEvery));
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

function meanOf(importance: Float64Array | undefined, group: number): number {
  if (!importance) return 1;
  const part = importance.subarray(group * GROUP_CHANNELS, (group + 1) * GROUP_CHANNELS);
  return part.length === 0 ? 0 : part.reduce((sum, value) => sum + value, 0) / part.length;
}
