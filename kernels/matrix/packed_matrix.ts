/**
 * Packed matrices on the device.
 *
 * @module
 */
import { blocksPerRow, type RefineEvery, TILE_ROWS } from "../../quant/format.ts";
import { type PackedTensor, planeLengths } from "../../quant/packed_tensor.ts";
import type { Outliers } from "../../quant/unpacked_tensor.ts";
import { allOrNone, type BufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type Plane, whole } from "../gpu/plane.ts";
import { slabRowsWithin } from "./slabs.ts";

/**
 * Rows of consecutive tiles of a packed matrix in device memory. Base words and scales lie as they do on disk; the
 * words of the other planes that belong to the four rows of a step follow each other, so that kernels load them at
 * once.
 */
export interface PackedSlab {
  /** First row of the matrix that this slab holds. */
  readonly firstRow: number;
  /** Rows of this slab. */
  readonly rows: number;
  /** u32 [rows, blocks, 8]. */
  readonly base: Plane;
  /** u32 [steps, refine words, 4 rows]; 16 zero bytes where no group is refined. */
  readonly refine: Plane;
  /** u32 [steps, half blocks, 4 rows]. */
  readonly meta: Plane;
  /** f16 [tiles, groups]. */
  readonly tileScale: Plane;
  /** Row starts as u32 [rows + 1], then channels as u16, then residuals as f16, each padded to a whole word. */
  readonly outliers: Plane;
  /** First word of the residuals in `outliers`; 0 where there are no outliers. */
  readonly outlierResiduals: number;
  /** Outliers in all rows. */
  readonly outlierCount: number;
}

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

/** Rows that the kernels multiply at a time. */
export const STEP_ROWS = 4;

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
  const slabs = await allOrNone(gpu, async (scope) => {
    const uploaded: PackedSlab[] = [];
    for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
      uploaded.push(await uploadSlab(scope, tensor, firstRow, Math.min(rows, firstRow + slabRows)));
    }
    return uploaded;
  });
  return { kind: "packed", rows, channels, refineEvery, halfBlocks: blocksPerRow(channels) * 2, slabs };
}

async function uploadSlab(
  scope: BufferScope,
  tensor: PackedTensor,
  firstRow: number,
  endRow: number,
): Promise<PackedSlab> {
  const rowsOf = (plane: Uint32Array<ArrayBuffer>) =>
    plane.subarray((plane.length / tensor.rows) * firstRow, (plane.length / tensor.rows) * endRow);
  const tileGroups = blocksPerRow(tensor.channels) * 8;
  const tiles = tensor.tileScale.subarray(
    Math.floor(firstRow / TILE_ROWS) * tileGroups,
    Math.ceil(endRow / TILE_ROWS) * tileGroups,
  );
  const { words, residuals, count } = joinOutliers(tensor, firstRow, endRow);
  return {
    firstRow,
    rows: endRow - firstRow,
    base: whole(await scope.upload("base", rowsOf(tensor.base))),
    refine: whole(await scope.upload("refine", interleaveSteps(rowsOf(tensor.refine), endRow - firstRow))),
    meta: whole(await scope.upload("meta", interleaveSteps(rowsOf(tensor.meta), endRow - firstRow))),
    tileScale: whole(await scope.upload("tileScale", tiles)),
    outliers: whole(await scope.upload("outliers", words)),
    outlierResiduals: residuals,
    outlierCount: count,
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

/** The outlier planes of some rows in one buffer, so that kernels stay within 8 bindings. */
function joinOutliers(tensor: OutlierPlanes, firstRow: number, endRow: number) {
  if (tensor.outlierStart.length === 0) return { words: new Uint32Array(4), residuals: 0, count: 0 };
  const starts = tensor.outlierStart.subarray(firstRow, endRow + 1);
  const [first, end] = [starts[0], starts[starts.length - 1]];
  const halves = Math.ceil((end - first) / 2);
  const residuals = starts.length + halves;
  const words = new Uint32Array(residuals + halves);
  words.set(starts.map((start) => start - first));
  new Uint16Array(words.buffer).set(tensor.outlierChannel.subarray(first, end), 2 * starts.length);
  new Float16Array(words.buffer).set(tensor.outlierResidual.subarray(first, end), 2 * residuals);
  return { words, residuals, count: end - first };
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
  const { words, residuals, count } = joinOutliers(planes, 0, matrix.rows);
  const outliers = whole(await gpu.uploadStorage("outliers", words));
  gpu.destroyBuffer(slab.outliers.buffer);
  return { ...matrix, slabs: [{ ...slab, outliers, outlierResiduals: residuals, outlierCount: count }] };
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
  const words = async ({ buffer, offset }: Plane, length: number) =>
    length === 0 ? new Uint32Array(0) : new Uint32Array(await gpu.read(buffer, 4 * length, offset));
  return {
    rows,
    channels,
    refineEvery,
    base: await words(slab.base, lengths.base),
    refine: separateSteps(await words(slab.refine, lengths.refine), rows),
    meta: separateSteps(await words(slab.meta, lengths.meta), rows),
    tileScale: new Float16Array((await words(slab.tileScale, lengths.tileScale / 2)).buffer),
    ...await readOutlierPlanes(gpu, slab),
  };
}

/** The reverse of {@linkcode joinOutliers}. */
async function readOutlierPlanes(
  gpu: Gpu,
  { rows, outliers, outlierResiduals, outlierCount }: PackedSlab,
): Promise<OutlierPlanes> {
  const starts = outlierCount === 0 ? 0 : rows + 1;
  const bytes = outlierCount === 0
    ? new ArrayBuffer(0)
    : await gpu.read(outliers.buffer, 4 * (outlierResiduals + Math.ceil(outlierCount / 2)), outliers.offset);
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
