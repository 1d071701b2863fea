// Joining packed tensors that are row ranges of one matrix, and taking such ranges.
import { TILE_ROWS } from "./format.ts";
import { type PackedTensor, validatePackedTensor } from "./packed_tensor.ts";

/**
 * Joins row ranges of a matrix, in order.
 *
 * @throws {TypeError} when they don't have the same channels and density, or one but the last ends within a tile
 */
export function concatenateRows(parts: readonly PackedTensor[]): PackedTensor {
  const { channels, refineEvery } = parts[0];
  for (const [i, part] of parts.entries()) {
    if (part.channels !== channels || part.refineEvery !== refineEvery) {
      throw new TypeError(
        `part ${i} has ${part.channels} channels, 1 refined group in ${part.refineEvery}, must be ` +
          `${channels} and ${refineEvery}`,
      );
    }
    if (i < parts.length - 1 && part.rows % TILE_ROWS !== 0) {
      throw new TypeError(`part ${i} has ${part.rows} rows, must be a multiple of ${TILE_ROWS}`);
    }
  }
  const joined: PackedTensor = {
    rows: parts.reduce((sum, { rows }) => sum + rows, 0),
    channels,
    refineEvery,
    ...joinPlanes(parts, ["base", "refine", "meta", "tileScale", "outlierChannel", "outlierResidual"]),
    outlierStart: joinStarts(parts),
  };
  validatePackedTensor(joined);
  return joined;
}

type Numbers =
  | Uint32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Float16Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>;

/** Joins arrays of one kind, which must be given where there may be none of them. */
export function joinArrays<T extends Numbers>(
  parts: readonly T[],
  kind = parts[0].constructor as new (length: number) => T,
): T {
  const all = new kind(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Joins each of some planes of row ranges. */
export function joinPlanes<K extends string, T extends Readonly<Record<K, Numbers>>>(
  parts: readonly T[],
  names: readonly K[],
): Pick<T, K> {
  const joined = names.map((name) => [name, joinArrays<Numbers>(parts.map((part) => part[name]))]);
  return Object.fromEntries(joined);
}

function joinStarts(parts: readonly PackedTensor[]): Uint32Array<ArrayBuffer> {
  if (parts.every(({ outlierChannel }) => outlierChannel.length === 0)) return new Uint32Array(0);
  const starts = [0];
  for (const { rows, outlierStart } of parts) {
    const before = starts[starts.length - 1];
    // A part without outliers has no starts; its rows start and end where the part before ends.
    for (let row = 1; row <= rows; row++) starts.push(before + (outlierStart[row] ?? 0));
  }
  return Uint32Array.from(starts);
}

/** Tiles `first` .. `end` - 1 of a matrix, as a matrix; {@linkcode concatenateRows} joins such again. */
export function sliceTiles(tensor: PackedTensor, first: number, end: number): PackedTensor {
  const { channels, refineEvery, outlierStart, outlierChannel, outlierResidual } = tensor;
  const [firstRow, endRow] = [first, end].map((tile) => Math.min(tensor.rows, tile * TILE_ROWS));
  const rowsOf = (plane: Uint32Array<ArrayBuffer>) => {
    const words = plane.length / tensor.rows;
    return plane.subarray(firstRow * words, endRow * words);
  };
  const groups = tensor.base.length / tensor.rows;
  const starts = outlierStart.subarray(firstRow, endRow + 1);
  const [firstOutlier = 0, endOutlier = 0] = [starts[0], starts[starts.length - 1]];
  const some = endOutlier > firstOutlier;
  return {
    rows: endRow - firstRow,
    channels,
    refineEvery,
    base: rowsOf(tensor.base),
    refine: rowsOf(tensor.refine),
    meta: rowsOf(tensor.meta),
    tileScale: tensor.tileScale.subarray(first * groups, end * groups),
    outlierStart: some ? starts.map((start) => start - firstOutlier) : new Uint32Array(0),
    outlierChannel: outlierChannel.subarray(firstOutlier, endOutlier),
    outlierResidual: outlierResidual.subarray(firstOutlier, endOutlier),
  };
}
