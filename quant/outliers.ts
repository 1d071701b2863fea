// Which weights become outliers, stored exactly in 16 bits.
import { createGroupProblem } from "./group_search.ts";
import { type GroupProbe, probeWithoutExtreme } from "./probe.ts";

/** How outliers are picked. */
export interface OutlierSettings {
  /** Outliers as a share of all weights; 0 for none. */
  readonly share: number;
  /** Groups that may have one. The paper keeps outliers in 2-bit groups only. */
  readonly groups: "two_bit" | "four_bit" | "both";
  /** By distance from the group's mean, or by how much the group's error falls without the weight. */
  readonly rule: "magnitude" | "error";
}

export interface RowOutliers {
  /** Bit mask within the group, by group. */
  readonly masks: ReadonlyMap<number, number>;
  /** Scale wanted without the outlier, by group. */
  readonly scales: ReadonlyMap<number, number>;
}

/** Settings without outliers. */
export const WITHOUT_OUTLIERS: OutlierSettings = { share: 0, groups: "two_bit", rule: "error" };

/**
 * Picks the outliers of a tile: at most one in a group, its most extreme weight.
 *
 * @param probes [rows][groups]
 * @param refined for each row, 1 for each refined group
 * @param weightsOf weights of a group of a row
 * @param weights number of weights of the tile
 */
export function pickOutliers(
  probes: readonly (readonly GroupProbe[])[],
  refined: readonly Uint8Array[],
  weightsOf: (row: number, group: number) => Float32Array,
  weights: number,
  { share, groups, rule }: OutlierSettings,
): RowOutliers[] {
  const picked = probes.map(() => ({ masks: new Map<number, number>(), scales: new Map<number, number>() }));
  const count = Math.round(share * weights);
  if (count === 0) return picked;
  const problem = createGroupProblem();
  const candidates = probes.flatMap((row, r) =>
    row.flatMap((probe, group) => {
      const isRefined = refined[r][group] === 1;
      if (probe.range === 0 || (groups !== "both" && (groups === "four_bit") !== isRefined)) return [];
      const without = probeWithoutExtreme(weightsOf(r, group), probe, isRefined, problem);
      const now = isRefined ? probe.fourBit : probe.twoBit;
      const gain = rule === "error" ? now.error - without.error : extremity(weightsOf(r, group), probe);
      return [{ r, group, gain, scale: without.scale, mask: 1 << probe.extreme }];
    })
  );
  candidates.sort((a, b) => b.gain - a.gain || a.r - b.r || a.group - b.group);
  for (const { r, group, scale, mask } of candidates.slice(0, count)) {
    picked[r].masks.set(group, mask);
    picked[r].scales.set(group, scale);
  }
  return picked;
}

function extremity(weights: Float32Array, { extreme }: GroupProbe): number {
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  return Math.abs(weights[extreme] - mean);
}
