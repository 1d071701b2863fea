// How extreme the most extreme weights of 2-bit and of refined groups are.
import { BLOCK_GROUPS, GROUP_CHANNELS } from "../quant/format.ts";
import { groupOfRow, probeGroup } from "../quant/probe.ts";
import { pickRefined } from "../quant/refine_pick.ts";
import { linearWeights } from "../model/llama/layer.ts";
import type { LayerSource } from "../model/quantize/quantizing_device.ts";

/** About so many weights are looked at, in at most one row of 16: the distribution is smooth and probing takes time. */
const PROBED_WEIGHTS = 2 ** 21;
const EVERY_ROW = 16;

/**
 * Describes the distance of each group's most extreme weight from the group's mean, in standard deviations of the
 * matrix, for 2-bit groups and for refined ones (one in 8, picked by error).
 */
export async function describeExtremes({ config, readLayer }: LayerSource): Promise<Record<string, string>> {
  const everyRow = Math.max(EVERY_ROW, Math.ceil(linearWeights(config) / PROBED_WEIGHTS));
  const distances: [twoBit: number[], refined: number[]] = [[], []];
  for (let layer = 0; layer < config.layers; layer++) {
    const { linears } = await readLayer(layer);
    for (const { weights, rows, channels } of Object.values(linears)) {
      let squares = 0;
      for (let i = 0; i < weights.length; i++) squares += weights[i] * weights[i];
      const deviation = Math.sqrt(squares / weights.length);
      const groups = Math.floor(channels / GROUP_CHANNELS / BLOCK_GROUPS) * BLOCK_GROUPS;
      for (let row = 0; row < rows && groups > 0; row += everyRow) {
        const members = Array.from({ length: groups }, (_, group) => groupOfRow(weights, row, channels, group));
        const probes = members.map((group) => probeGroup(group));
        const [refined] = pickRefined([probes], BLOCK_GROUPS, "error", { seed: 0 });
        members.forEach((group, g) => {
          const mean = group.reduce((sum, weight) => sum + weight, 0) / group.length;
          distances[refined[g]].push(Math.abs(group[probes[g].extreme] - mean) / deviation);
        });
      }
    }
  }
  const [twoBit, refined] = distances.map((found) => `${describe(found)} (one row in ${everyRow})`);
  return {
    "most extreme weight of 2-bit groups": twoBit,
    "most extreme weight of refined groups": refined,
  };
}

function describe(distances: readonly number[]): string {
  const sorted = Float64Array.from(distances).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))].toFixed(2);
  return `${at(0.5)} standard deviations of the matrix from the group's mean in the median, ${at(0.99)} at the 99th ` +
    `percentile, ${at(1)} at most`;
}
