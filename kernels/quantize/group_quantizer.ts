/**
 * Launchers of the kernels that quantize a matrix group by group, all rows at once: probe, pick, search, meta words.
 *
 * Their CPU twin is `quantizeTwobit` (quant/twobit.ts). Errors are compared in f32 here and in f64 there, so where two
 * candidates tie within f32 rounding the choice may differ: a picked group, a scale or zero code, and through a tile's
 * largest scale the last bit of its d.
 *
 * @module
 */
import { BLOCK_GROUPS, blocksPerRow, GROUP_CHANNELS, refineWordsPerRow, TILE_ROWS } from "../../quant/format.ts";
import type { RefineEvery } from "../../quant/format.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { Dispatch, Gpu, Kernel } from "../gpu/gpu.ts";
import type { PackedMatrix, PackedSlab } from "../matrix/packed_matrix.ts";
import { type Plane, whole } from "../gpu/plane.ts";
import { submitWeightParts } from "../matrix/weight_parts.ts";
import freeSearchCode from "./parts/free_search.wgsl" with { type: "text" };
import gridCode from "./parts/group_grid.wgsl" with { type: "text" };
import turnedCode from "./parts/turned_values.wgsl" with { type: "text" };
import writeCode from "./parts/write_group.wgsl" with { type: "text" };
import packCode from "./pack_meta.wgsl" with { type: "text" };
import pickCode from "./pick_refined.wgsl" with { type: "text" };
import probeCode from "./probe_groups.wgsl" with { type: "text" };
import searchCode from "./search_groups.wgsl" with { type: "text" };
import turnCode from "./turn_weights.wgsl" with { type: "text" };

/** What kernels that search and write groups share. */
export const GROUP_CODE: string = [gridCode, turnedCode, writeCode].join("\n");

/** The whole shader of each kernel. */
export const GROUP_QUANTIZER_CODE = {
  turn_weights: turnCode,
  probe_groups: [probeCode, freeSearchCode, gridCode, turnedCode].join("\n"),
  pick_refined: pickCode,
  search_groups: [searchCode, freeSearchCode, GROUP_CODE].join("\n"),
  pack_meta: packCode,
} as const;

/** Rows of a workgroup of all these kernels. */
const WORKGROUP_ROWS = 64;

/** A matrix on its way into the packed format. */
export interface QuantizingMatrix {
  /** Output rows, a multiple of 4. */
  readonly rows: number;
  /** Input channels, a multiple of 16. */
  readonly channels: number;
  /** Groups of a row, with padding. */
  readonly groups: number;
  /** One refined group in every so many. */
  readonly refineEvery: RefineEvery;
  /** u32 [channels / 16]: the group at each position of the order of quantization. */
  readonly groupOrder: GPUBuffer;
  /** f32 [channels, rows]: the weights, or their target, in that order; error feedback replaces them by their errors. */
  readonly turned: GPUBuffer;
  /** f32 [3, groups, rows]: see probe_groups.wgsl. */
  readonly prospects: GPUBuffer;
  /** u32 [runs, rows]: see pick_refined.wgsl. */
  readonly picks: GPUBuffer;
  /** u32 [groups, rows]: scale and zero codes. */
  readonly groupCodes: GPUBuffer;
  /** The planes that are being written. */
  readonly planes: PackedSlab;
}

/** @throws {RangeError} where the device doesn't quantize matrices of this shape */
export function checkQuantizable(rows: number, channels: number): void {
  if (channels % GROUP_CHANNELS !== 0) {
    throw new RangeError(`matrix has ${channels} channels, must be a multiple of ${GROUP_CHANNELS} on the device`);
  }
  if (rows % 4 !== 0) throw new RangeError(`matrix has ${rows} rows, must be a multiple of 4 on the device`);
}

/**
 * Makes the buffers of a matrix.
 *
 * @param scope frees them, but for the planes, which belong to the caller
 * @param turned f32 [channels, rows]: the weights, or their target, in the order of `groupOrder`
 */
export async function createQuantizingMatrix(
  gpu: Gpu,
  scope: BufferScope,
  [rows, channels]: readonly [rows: number, channels: number],
  refineEvery: RefineEvery,
  groupOrder: GPUBuffer,
  turned: GPUBuffer,
): Promise<QuantizingMatrix> {
  const blocks = blocksPerRow(channels);
  const groups = blocks * BLOCK_GROUPS;
  const runs = refineWordsPerRow(blocks, refineEvery);
  const words = (label: string, count: number) => scope.storage(label, 4 * Math.max(4, count));
  const plane = async (label: string, count: number) =>
    whole(await gpu.createStorage(label, 16 * Math.max(1, Math.ceil(count / 4))));
  return {
    rows,
    channels,
    groups,
    refineEvery,
    groupOrder,
    turned,
    prospects: await words("prospects", 3 * groups * rows),
    picks: await words("picks", runs * rows),
    groupCodes: await words("group codes", groups * rows),
    planes: {
      firstRow: 0,
      rows,
      base: await plane("base", rows * groups),
      refine: await plane("refine", rows * runs),
      meta: await plane("meta", rows * blocks * 2),
      tileScale: await plane("tileScale", (Math.ceil(rows / TILE_ROWS) * groups) / 2),
      outliers: await plane("outliers", 4),
      outlierResiduals: 0,
      outlierCount: 0,
    },
  };
}

/** Override constants of the kernels here. */
export function groupConstants({ rows, groups, refineEvery }: QuantizingMatrix): Record<string, number> {
  return { rows, groups, refine_every: refineEvery === "none" ? 0 : refineEvery };
}

type Name = keyof typeof GROUP_QUANTIZER_CODE;

async function launch(
  gpu: Gpu,
  name: Name,
  constants: Record<string, number>,
  buffers: readonly (GPUBuffer | Plane)[],
  rows: number,
  depth: number,
): Promise<Dispatch> {
  const kernel: Kernel = await gpu.createKernel(name, GROUP_QUANTIZER_CODE[name], constants);
  return { kernel, bindings: gpu.bind(kernel, buffers), workgroups: [Math.ceil(rows / WORKGROUP_ROWS), depth, 1] };
}

/**
 * Adds a matrix of the host, turned, to what is in `turned`: see turn_weights.wgsl.
 *
 * @param weights f32 [rows, channels]
 * @param turned f32 [channels, rows]
 */
export async function turnWeights(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Float32Array<ArrayBuffer>,
  groupOrder: GPUBuffer,
  turned: GPUBuffer,
): Promise<void> {
  const groups = channels / GROUP_CHANNELS;
  const kernel = await gpu.createKernel("turn_weights", turnCode, { rows, groups });
  await submitWeightParts(gpu, [rows, channels], weights, (part) => {
    const bindings = gpu.bind(kernel, [part.range, part.weights, groupOrder, turned]);
    return { kernel, bindings, workgroups: [Math.ceil(part.rows / WORKGROUP_ROWS), groups, 1] };
  });
}

/** Dispatches that look at every group, pick the refined ones and set second-order scales. */
export async function pickGroups(gpu: Gpu, matrix: QuantizingMatrix): Promise<Dispatch[]> {
  const { rows, channels, groups, turned, groupOrder, prospects, picks, planes } = matrix;
  const probed = [turned, groupOrder, prospects];
  const tiles = Math.ceil(rows / TILE_ROWS);
  return [
    await launch(gpu, "probe_groups", { rows, groups }, probed, rows, channels / GROUP_CHANNELS),
    await launch(
      gpu,
      "pick_refined",
      groupConstants(matrix),
      [prospects, picks, planes.tileScale],
      tiles,
      Math.ceil(groups / 16),
    ),
  ];
}

/** Dispatch that searches every group's codes by itself. */
export function searchGroups(gpu: Gpu, matrix: QuantizingMatrix): Promise<Dispatch> {
  const { rows, channels, turned, groupOrder, picks, groupCodes, planes } = matrix;
  const buffers = [turned, groupOrder, picks, planes.tileScale, planes.base, planes.refine, groupCodes];
  return launch(gpu, "search_groups", groupConstants(matrix), buffers, rows, channels / GROUP_CHANNELS);
}

/** Dispatch that packs the meta words, once all groups have their codes. */
export function packMetaWords(gpu: Gpu, matrix: QuantizingMatrix): Promise<Dispatch> {
  const { rows, groups, picks, groupCodes, planes } = matrix;
  return launch(gpu, "pack_meta", groupConstants(matrix), [groupCodes, picks, planes.meta], rows, groups / 4);
}

/** The packed matrix whose planes have been written. */
export function packedMatrixOf({ rows, channels, groups, refineEvery, planes }: QuantizingMatrix): PackedMatrix {
  return { rows, channels, refineEvery, halfBlocks: groups / 4, slabs: [planes] };
}
