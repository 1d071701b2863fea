// Random packed matrices.
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, TILE_ROWS, tilesPerColumn } from "./format.ts";
import { pack } from "./pack.ts";
import type { PackedTensor } from "./packed_tensor.ts";
import { createRandom } from "./random.ts";

/** Rows drawn at random; larger matrices repeat them. */
const RANDOM_ROWS = 64;

/**
 * A packed matrix of random codes and scales about 0.001, for measuring speed.
 *
 * @param outlierShare outliers of a row as a share of its channels
 */
export function randomPacked(
  rows: number,
  channels: number,
  outlierShare: number,
  seed: number,
  refineEvery: RefineEvery = 8,
): PackedTensor {
  const random = createRandom(seed);
  const groups = groupsPerRow(channels);
  const refined = new Uint8Array(RANDOM_ROWS * groups);
  const run = refineEvery === "none" ? Infinity : refineEvery;
  for (let row = 0; row < refined.length; row += groups) {
    for (let i = 0; i < groups && run !== Infinity; i += run) {
      refined[row + i + random.integer(Math.min(run, groups - i))] = 1;
    }
  }
  const draw = (length: number, limit: (i: number) => number) =>
    Uint8Array.from({ length }, (_, i) => random.integer(limit(i)));
  const perRow = Math.round(channels * outlierShare);
  const tensor = pack({
    rows: RANDOM_ROWS,
    channels,
    refineEvery,
    refined,
    codes: draw(refined.length * GROUP_CHANNELS, (i) => refined[Math.floor(i / GROUP_CHANNELS)] ? 16 : 4),
    scaleCodes: draw(refined.length, () => 16),
    zeroCodes: draw(refined.length, () => 8),
    tileScale: Float16Array.from(
      { length: (RANDOM_ROWS / TILE_ROWS) * groups },
      () => 0.001 * (0.5 + random.uniform()),
    ),
    outliers: {
      start: perRow === 0
        ? new Uint32Array(0)
        : Uint32Array.from({ length: RANDOM_ROWS + 1 }, (_, row) => row * perRow),
      channel: Uint16Array.from({ length: RANDOM_ROWS * perRow }, (_, i) => {
        return Math.floor(((i % perRow) + random.uniform()) * (channels / perRow));
      }),
      residual: Float16Array.from({ length: RANDOM_ROWS * perRow }, () => random.normal() * 0.05),
    },
  });
  return repeatRows(tensor, rows, perRow);
}

function repeatRows(tensor: PackedTensor, rows: number, outliersPerRow: number): PackedTensor {
  const outliers = rows * outliersPerRow;
  return {
    ...tensor,
    rows,
    base: repeat(tensor.base, new Uint32Array((tensor.base.length / RANDOM_ROWS) * rows)),
    refine: repeat(tensor.refine, new Uint32Array((tensor.refine.length / RANDOM_ROWS) * rows)),
    meta: repeat(tensor.meta, new Uint32Array((tensor.meta.length / RANDOM_ROWS) * rows)),
    tileScale: repeat(
      tensor.tileScale,
      new Float16Array(((tensor.tileScale.length * TILE_ROWS) / RANDOM_ROWS) * tilesPerColumn(rows)),
    ),
    outlierStart: outliers === 0
      ? tensor.outlierStart
      : Uint32Array.from({ length: rows + 1 }, (_, row) => row * outliersPerRow),
    outlierChannel: repeat(tensor.outlierChannel, new Uint16Array(outliers)),
    outlierResidual: repeat(tensor.outlierResidual, new Float16Array(outliers)),
  };
}

/** Fills an array with a pattern, again and again. */
export function repeat<T extends Uint32Array | Uint16Array | Float16Array>(pattern: T, target: T): T {
  for (let at = 0; at < target.length; at += pattern.length) {
    target.set(pattern.subarray(0, Math.min(pattern.length, target.length - at)), at);
  }
  return target;
}
