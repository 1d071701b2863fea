// Version 1 of the packed format: rows are padded to whole blocks of 128 channels, where those of version 2 may end in
// half a block. Rows of whole blocks are the same words in both.
import {
  BLOCK_GROUPS,
  groupsPerRow,
  HALF_BLOCK_GROUPS,
  refineWordsPerRow,
  tilesPerColumn,
} from "../../quant/format.ts";
import { lastRunIsPlain, PICK_SHIFT } from "../../quant/meta.ts";
import type { PackedShape, PackedTensor, PlaneName } from "../../quant/packed_tensor.ts";

/** Shape that a plane has in version 1. */
export function planeShapeOfVersion1(
  plane: PlaneName,
  { rows, channels, refineEvery }: PackedShape,
  outliers: number,
): number[] {
  const groups = groupsOfVersion1(channels);
  switch (plane) {
    case "base":
      return [rows, groups / BLOCK_GROUPS, BLOCK_GROUPS];
    case "meta":
      return [rows, groups / BLOCK_GROUPS, 2];
    case "refine":
      return [rows, refineWordsPerRow(groups, refineEvery)];
    case "tileScale":
      return [tilesPerColumn(rows), groups];
    case "outlierStart":
      return [outliers === 0 ? 0 : rows + 1];
    default:
      return [outliers];
  }
}

function groupsOfVersion1(channels: number): number {
  return Math.ceil(groupsPerRow(channels) / BLOCK_GROUPS) * BLOCK_GROUPS;
}

/**
 * The same weights in version 2. Half a block of nothing but padding goes; where it held the refined group of the row's
 * last run, the run has none.
 *
 * @param tensor planes of version 1's shapes
 */
export function fromVersion1(tensor: PackedTensor): PackedTensor {
  const { rows, channels, refineEvery } = tensor;
  const groups = groupsPerRow(channels);
  if (groups === groupsOfVersion1(channels)) return tensor;
  const meta = firstOfRows(tensor.meta, rows, groups / HALF_BLOCK_GROUPS);
  const refine = firstOfRows(tensor.refine, rows, refineWordsPerRow(groups, refineEvery));
  if (refineEvery === 16 || refineEvery === 8) dropPaddingPicks({ ...tensor, meta, refine }, groups, refineEvery);
  return {
    ...tensor,
    base: firstOfRows(tensor.base, rows, groups),
    refine,
    meta,
    tileScale: firstOfRows(tensor.tileScale, tilesPerColumn(rows), groups),
  };
}

/** The first `length` elements of each row of a plane. */
function firstOfRows<T extends Uint32Array<ArrayBuffer> | Float16Array<ArrayBuffer>>(
  plane: T,
  rows: number,
  length: number,
): T {
  const stride = plane.length / rows;
  return plane.filter((_, i) => i % stride < length) as T;
}

/** Lets picks of groups that are gone say that the last run has no refined group. */
function dropPaddingPicks({ rows, meta, refine }: PackedTensor, groups: number, refineEvery: 16 | 8): void {
  const left = groups % refineEvery;
  const paddedGroups = left + HALF_BLOCK_GROUPS;
  for (let row = 1; row <= rows; row++) {
    const end = (row * meta.length) / rows;
    for (let at = end - left / HALF_BLOCK_GROUPS; at < end; at++) {
      const pick = meta[at] >>> PICK_SHIFT;
      // A pick beyond version 1's row is left to be refused.
      if (pick >= left && pick < paddedGroups) meta[at] = ((meta[at] << 4) >>> 4) | (left << PICK_SHIFT);
    }
    if (lastRunIsPlain(meta[end - 1], groups, refineEvery)) refine[(row * refine.length) / rows - 1] = 0;
  }
}
