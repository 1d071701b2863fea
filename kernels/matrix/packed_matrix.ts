// Packed matrices on the device.
import {
  BLOCK_GROUPS,
  groupsPerRow,
  halfBlocksPerRow,
  type RefineEvery,
  refineWordsPerRow,
  TILE_ROWS,
  tilesPerColumn,
} from "../../quant/format.ts";
import { type PackedTensor, planeLengths } from "../../quant/packed_tensor.ts";
import type { Outliers } from "../../quant/unpacked_tensor.ts";
import { allOrNone, type BufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type Plane, whole } from "../gpu/plane.ts";
import { chooseTeam } from "../gpu/team.ts";
import { slabRowsWithin } from "./slabs.ts";

/**
 * Rows of consecutive tiles of a packed matrix in device memory. Base words lie as they do on disk; the words of the
 * refine and meta planes that belong to the four rows of a step follow each other, and scales are padded to whole
 * blocks with zeros, so that kernels load them at once.
 */
export interface PackedSlab {
  /** First row of the matrix that this slab holds. */
  readonly firstRow: number;
  /** Rows of this slab. */
  readonly rows: number;
  /** u32 [rows, half blocks, 4]. */
  readonly base: Plane;
  /** u32 [steps, refine words, 4 rows]; 16 zero bytes where no group is refined. */
  readonly refine: Plane;
  /** u32 [steps, half blocks, 4 rows]. */
  readonly meta: Plane;
  /** f16 [tiles, {@linkcode scaleGroups}]. */
  readonly tileScale: Plane;
  /**
   * Row starts as u32 [rows + 1], then channels as u16, then residuals as f16, each padded to a whole word; then the first
   * outliers of each row once more, in u32 [rows, slots]: channel in the low half, residual in the high one, 0 for none.
   */
  readonly outliers: Plane;
  /** First word of the residuals in `outliers`; 0 where there are no outliers. */
  readonly outlierResiduals: number;
  /** Outliers in all rows. */
  readonly outlierCount: number;
  /** First word of the slots in `outliers`, a multiple of {@linkcode LANE_SLOTS}; 0 where there are no outliers. */
  readonly slotStart: number;
  /** Slots of a row, a power of two from {@linkcode LANE_SLOTS} on. */
  readonly slots: number;
  /** Whether a row has more outliers than slots. */
  readonly hasBeyond: boolean;
}

/** Slots that a lane takes: a vector. */
export const LANE_SLOTS = 4;

/** What says of a slab that it has no outliers. */
export const NO_OUTLIERS = { outlierResiduals: 0, outlierCount: 0, slotStart: 0, slots: LANE_SLOTS, hasBeyond: false };

/** A packed matrix in device memory; more than one slab where a plane exceeds the binding limit. */
export interface PackedMatrix {
  /** Format of its weights. */
  readonly kind: "packed";
  /** Output rows. */
  readonly rows: number;
  /** Input channels, without padding. */
  readonly channels: number;
  /** One refined group in every so many groups of a row. */
  readonly refineEvery: RefineEvery;
  /** Half blocks of a row: the unit that one lane decodes. */
  readonly halfBlocks: number;
  /** The rows, in order. */
  readonly slabs: readonly PackedSlab[];
}

/** Slots that cost a product about as much as an outlier that has none, whose two words are asked for late. */
const BEYOND_SLOTS = 8;

/** Rows that the kernels multiply at a time. */
export const STEP_ROWS = 4;

/** Second-order scales of a tile in device memory, for a row of so many groups. */
export function scaleGroups(groups: number): number {
  return Math.ceil(groups / BLOCK_GROUPS) * BLOCK_GROUPS;
}

/** Bytes of a matrix without outliers in device memory, as one slab, in the planes of {@linkcode uploadPackedMatrix}. */
export function packedDeviceBytes(rows: number, channels: number, refineEvery: RefineEvery): number {
  const groups = groupsPerRow(channels);
  const stepRows = Math.ceil(rows / STEP_ROWS) * STEP_ROWS;
  const planeBytes = [
    4 * rows * groups,
    4 * stepRows * refineWordsPerRow(groups, refineEvery),
    4 * stepRows * halfBlocksPerRow(channels),
    2 * tilesPerColumn(rows) * scaleGroups(groups),
    0, // outliers
  ];
  return planeBytes.reduce((sum, bytes) => sum + Math.max(1, Math.ceil(bytes / 16)) * 16, 0);
}

/**
 * Uploads a packed tensor.
 *
 * @param maxBindingBytes planes larger than this are split by rows; default: the device's limit
 * @throws {OutOfMemoryError} when the device has no room; nothing of the matrix then stays there
 */
export async function uploadPackedMatrix(
  gpu: Gpu,
  tensor: PackedTensor,
  maxBindingBytes: number = gpu.device.limits.maxStorageBufferBindingSize,
): Promise<PackedMatrix> {
  const { rows, channels, refineEvery } = tensor;
  const rowBytes = tensor.base.byteLength / rows;
  const slabRows = slabRowsWithin(maxBindingBytes, rowBytes);
  const { lanes } = chooseTeam(gpu.profile);
  const slabs = await allOrNone(gpu, async (scope) => {
    const uploaded: PackedSlab[] = [];
    for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
      uploaded.push(await uploadSlab(scope, tensor, lanes, firstRow, Math.min(rows, firstRow + slabRows)));
    }
    return uploaded;
  });
  return { kind: "packed", rows, channels, refineEvery, halfBlocks: halfBlocksPerRow(channels), slabs };
}

async function uploadSlab(
  scope: BufferScope,
  tensor: PackedTensor,
  lanes: number,
  firstRow: number,
  endRow: number,
): Promise<PackedSlab> {
  const rowsOf = (plane: Uint32Array<ArrayBuffer>) =>
    plane.subarray((plane.length / tensor.rows) * firstRow, (plane.length / tensor.rows) * endRow);
  const groups = groupsPerRow(tensor.channels);
  const tiles = tensor.tileScale.subarray(
    Math.floor(firstRow / TILE_ROWS) * groups,
    Math.ceil(endRow / TILE_ROWS) * groups,
  );
  const { words, ...places } = joinOutliers(tensor, lanes, firstRow, endRow);
  return {
    firstRow,
    rows: endRow - firstRow,
    base: whole(await scope.upload("base", rowsOf(tensor.base))),
    refine: whole(await scope.upload("refine", interleaveSteps(rowsOf(tensor.refine), endRow - firstRow))),
    meta: whole(await scope.upload("meta", interleaveSteps(rowsOf(tensor.meta), endRow - firstRow))),
    tileScale: whole(await scope.upload("tileScale", resizeRows(tiles, groups, scaleGroups(groups)))),
    outliers: whole(await scope.upload("outliers", words)),
    ...places,
  };
}

/** From [rows, words] to [steps, words, 4 rows], the last step filled up with zeros. */
function interleaveSteps(plane: Uint32Array<ArrayBuffer>, rows: number): Uint32Array<ArrayBuffer> {
  const words = plane.length / rows;
  const steps = new Uint32Array(Math.ceil(rows / STEP_ROWS) * STEP_ROWS * words);
  for (let row = 0; row < rows; row++) {
    const first = Math.floor(row / STEP_ROWS) * STEP_ROWS * words + row % STEP_ROWS;
    for (let word = 0; word < words; word++) steps[first + word * STEP_ROWS] = plane[row * words + word];
  }
  return steps;
}

/** The planes of a tensor that hold its outliers. */
type OutlierPlanes = Pick<PackedTensor, "outlierStart" | "outlierChannel" | "outlierResidual">;

/** The outlier planes of some rows in one buffer, so that kernels stay within 8 bindings, for teams of so many lanes. */
function joinOutliers(tensor: OutlierPlanes, lanes: number, firstRow: number, endRow: number) {
  const first = tensor.outlierStart[firstRow];
  // Both are undefined where the tensor has none at all.
  if (first === tensor.outlierStart[endRow]) return { words: new Uint32Array(4), ...NO_OUTLIERS };
  const starts = tensor.outlierStart.subarray(firstRow, endRow + 1).map((start) => start - first);
  const rows = endRow - firstRow;
  const outlierCount = starts[rows];
  const channels = tensor.outlierChannel.subarray(first, first + outlierCount);
  const residuals = tensor.outlierResidual.subarray(first, first + outlierCount);
  const slots = chooseSlots(starts, LANE_SLOTS * lanes);
  const outlierResiduals = rows + 1 + Math.ceil(outlierCount / 2);
  const slotStart = Math.ceil((outlierResiduals + Math.ceil(outlierCount / 2)) / LANE_SLOTS) * LANE_SLOTS;
  const words = new Uint32Array(slotStart + rows * slots);
  const [u16, f16] = [new Uint16Array(words.buffer), new Float16Array(words.buffer)];
  words.set(starts);
  u16.set(channels, 2 * (rows + 1));
  f16.set(residuals, 2 * outlierResiduals);
  for (let row = 0; row < rows; row++) {
    const end = Math.min(starts[row] + slots, starts[row + 1]);
    for (let i = starts[row], at = 2 * (slotStart + row * slots); i < end; i++, at += 2) {
      u16[at] = channels[i];
      f16[at + 1] = residuals[i];
    }
  }
  return { words, outlierResiduals, outlierCount, slotStart, slots, hasBeyond: countBeyond(starts, slots) > 0 };
}

/** The power of two that makes products fastest: each slot is loaded and multiplied, whether it is empty or not. */
function chooseSlots(starts: Uint32Array, most: number): number {
  const cost = (slots: number) => slots * (starts.length - 1) + BEYOND_SLOTS * countBeyond(starts, slots);
  let slots = LANE_SLOTS;
  while (2 * slots <= most && cost(2 * slots) < cost(slots)) slots *= 2;
  return slots;
}

/** Outliers that rows have beyond so many. */
function countBeyond(starts: Uint32Array, slots: number): number {
  return starts.reduce((sum, start, row) => sum + Math.max(0, start - (starts[row - 1] ?? start) - slots), 0);
}

/** From [rows, from] to [rows, to]: rows are cut off, or filled up with zeros. */
function resizeRows(plane: Float16Array<ArrayBuffer>, from: number, to: number): Float16Array<ArrayBuffer> {
  if (from === to) return plane;
  const resized = new Float16Array((plane.length / from) * to);
  for (let at = 0, row = 0; at < plane.length; at += from, row++) {
    resized.set(plane.subarray(at, at + Math.min(from, to)), row * to);
  }
  return resized;
}

/** From [steps, words, 4 rows] to [rows, words]. */
function separateSteps(plane: Uint32Array<ArrayBuffer>, rows: number): Uint32Array<ArrayBuffer> {
  const words = plane.length / rows;
  const separated = new Uint32Array(plane.length);
  for (let row = 0; row < rows; row++) {
    const first = Math.floor(row / STEP_ROWS) * STEP_ROWS * words + row % STEP_ROWS;
    for (let word = 0; word < words; word++) separated[row * words + word] = plane[first + word * STEP_ROWS];
  }
  return separated;
}

/**
 * Puts outliers into a matrix without them, which lies in one slab.
 *
 * @returns the matrix with them, in place of the one that is given
 */
export async function placeOutliers(
  gpu: Gpu,
  matrix: PackedMatrix,
  { start, channel, residual }: Outliers,
): Promise<PackedMatrix> {
  const [slab] = matrix.slabs;
  const planes = { outlierStart: start, outlierChannel: channel, outlierResidual: residual };
  const { words, ...places } = joinOutliers(planes, chooseTeam(gpu.profile).lanes, 0, matrix.rows);
  const outliers = whole(await gpu.uploadStorage("outliers", words));
  gpu.destroyBuffer(slab.outliers.buffer);
  return { ...matrix, slabs: [{ ...slab, outliers, ...places }] };
}

/**
 * Reads a matrix back from the device.
 *
 * @throws {TypeError} when it lies in several slabs or has a last step of fewer than four rows
 */
export async function readPackedMatrix(gpu: Gpu, matrix: PackedMatrix): Promise<PackedTensor> {
  const { rows, channels, refineEvery, slabs: [slab] } = matrix;
  if (matrix.slabs.length !== 1 || rows % STEP_ROWS !== 0) {
    const found = `${matrix.slabs.length} slabs and ${rows} rows`;
    throw new TypeError(`matrix has ${found}, must have 1 and a multiple of ${STEP_ROWS} to be read`);
  }
  const lengths = planeLengths(rows, channels, refineEvery, 0);
  const groups = groupsPerRow(channels);
  const outlierWords = slab.outlierCount === 0 ? 0 : slab.outlierResiduals + Math.ceil(slab.outlierCount / 2);
  const part = ({ buffer, offset }: Plane, words: number) => ({ buffer, offset, size: 4 * words });
  const [scales, base, refine, meta, outliers] = await gpu.readParts([
    part(slab.tileScale, (tilesPerColumn(rows) * scaleGroups(groups)) / 2),
    part(slab.base, lengths.base),
    part(slab.refine, lengths.refine),
    part(slab.meta, lengths.meta),
    part(slab.outliers, outlierWords),
  ]);
  return {
    rows,
    channels,
    refineEvery,
    base: new Uint32Array(base),
    refine: separateSteps(new Uint32Array(refine), rows),
    meta: separateSteps(new Uint32Array(meta), rows),
    tileScale: resizeRows(new Float16Array(scales), scaleGroups(groups), groups),
    ...outlierPlanes(slab, outliers),
  };
}

/** The reverse of {@linkcode joinOutliers}. */
function outlierPlanes({ rows, outlierResiduals, outlierCount }: PackedSlab, bytes: ArrayBuffer): OutlierPlanes {
  const starts = outlierCount === 0 ? 0 : rows + 1;
  return {
    outlierStart: new Uint32Array(bytes, 0, starts),
    outlierChannel: new Uint16Array(bytes, 4 * starts, outlierCount),
    outlierResidual: new Float16Array(bytes, 4 * outlierResiduals, outlierCount),
  };
}

/** The planes of a slab by the names that shaders give them. */
export function planeBuffers(
  { base, refine, meta, tileScale, outliers }: PackedSlab,
): Record<"base" | "refine" | "meta_words" | "tile_scale" | "outlier_planes", Plane> {
  return { base, refine, meta_words: meta, tile_scale: tileScale, outlier_planes: outliers };
}

/** The planes of a slab, in the order in which they lie side by side. */
export function planesOf(slab: PackedSlab): Plane[] {
  return Object.values(planeBuffers(slab));
}
