// Launchers of the kernels that decide on each group before it is rounded: probe, refined groups, outliers, second-order
// scales.
import { GROUP_CHANNELS, TILE_ROWS } from "../../quant/format.ts";
import { NO_OUTLIERS, type Outliers } from "../../quant/unpacked_tensor.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import {
  groupBuffers,
  groupConstants,
  launch,
  mayHaveOutliers,
  outliersOf,
  type QuantizingMatrix,
  roundingConstants,
  WORKGROUP_ROWS,
} from "./group_quantizer.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatches that look at every group, pick the refined ones and the outliers, and set second-order scales.
 *
 * @param scope takes over what they need
 */
export async function pickGroups(gpu: Gpu, scope: BufferScope, matrix: QuantizingMatrix): Promise<Dispatch[]> {
  const { rows, channels, groups, hasPicks } = matrix;
  const [probe, pick] = [joinShader(wgsl, "probe_groups"), joinShader(wgsl, "pick_refined")];
  const pickWith = (hasPicks: boolean) => {
    const constants = { ...groupConstants(matrix), has_picks: hasPicks ? 1 : 0 };
    return launch(gpu, pick, matrix, [Math.ceil(rows / TILE_ROWS), Math.ceil(groups / 16)], constants);
  };
  const dispatches = [
    await launch(gpu, probe, matrix, [rows, channels / GROUP_CHANNELS], { rows, groups }),
    await pickWith(hasPicks),
  ];
  if (!mayHaveOutliers(matrix)) return dispatches;
  // Once more in the end: outliers change the scales that groups want.
  return [...dispatches, ...await pickOutliers(gpu, scope, matrix), await pickWith(true)];
}

async function pickOutliers(gpu: Gpu, scope: BufferScope, matrix: QuantizingMatrix): Promise<Dispatch[]> {
  const { rows, channels, groups, outliers } = matrix;
  const candidates = await scope.storage("outlier candidates", 4 * 2 * groups * rows);
  const [probe, pick] = [joinShader(wgsl, "probe_outliers"), joinShader(wgsl, "pick_outliers")];
  const tiles = Math.ceil(rows / TILE_ROWS);
  return [
    await gpu.makeDispatch(probe, {
      constants: {
        ...roundingConstants(matrix),
        in_two_bit: outliers.groups === "four_bit" ? 0 : 1,
        in_refined: outliers.groups === "two_bit" ? 0 : 1,
        by_magnitude: outliers.rule === "magnitude" ? 1 : 0,
      },
      buffers: { ...groupBuffers(probe, matrix), candidates },
      workgroups: [Math.ceil(rows / WORKGROUP_ROWS), channels / GROUP_CHANNELS, 1],
    }),
    await gpu.makeDispatch(pick, {
      constants: {
        ...groupConstants(matrix),
        wanted: outliersOf(outliers, TILE_ROWS, channels),
        wanted_last: outliersOf(outliers, rows % TILE_ROWS, channels),
      },
      buffers: { ...groupBuffers(pick, matrix), candidates },
      workgroups: [tiles, 1, 1],
    }),
  ];
}

/** Reads the outliers of a matrix once its groups have their codes; a residual beyond f16 is infinite. */
export async function readOutliers(gpu: Gpu, { rows, groups, groupCodes }: QuantizingMatrix): Promise<Outliers> {
  const words = new Uint32Array(await gpu.read(groupCodes, 4 * groups * rows));
  const start = new Uint32Array(rows + 1);
  for (let i = 0; i < words.length; i++) if (placeOf(words[i]) > 0) start[i % rows + 1]++;
  for (let row = 0; row < rows; row++) start[row + 1] += start[row];
  const channel = new Uint16Array(start[rows]);
  const residual = new Uint16Array(start[rows]);
  const next = start.slice();
  // Groups lie one after the other, so each row meets its channels in ascending order.
  for (let i = 0; i < words.length; i++) {
    const place = placeOf(words[i]);
    if (place === 0) continue;
    const at = next[i % rows]++;
    channel[at] = GROUP_CHANNELS * Math.floor(i / rows) + place - 1;
    residual[at] = words[i] >>> 16;
  }
  return channel.length === 0 ? NO_OUTLIERS : { start, channel, residual: new Float16Array(residual.buffer) };
}

/** One more than an outlier's place in its group, 0 for none: see pick_outliers.wgsl. */
function placeOf(word: number): number {
  return (word >> 7) & 31;
}
