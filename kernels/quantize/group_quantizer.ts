// Launchers of the kernels that quantize a matrix group by group, all rows at once: search, meta words; pick_groups.ts has
// what comes before.
//
// Their CPU reference is `quantizeTwobit` (quant/twobit.ts). Errors are compared in f32 here and in f64 there, so where
// two candidates tie within f32 rounding the choice may differ: a picked group, a scale or zero code, and through a
// tile's largest scale the last bit of its d.
import { GROUP_CHANNELS, groupsPerRow, halfBlocksPerRow, refineWordsPerRow, TILE_ROWS } from "../../quant/format.ts";
import type { RefineEvery } from "../../quant/format.ts";
import type { OutlierSettings } from "../../quant/outliers.ts";
import { meanOf } from "../../quant/refine_pick.ts";
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { Constants, Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { NO_OUTLIERS, type PackedMatrix, type PackedSlab, planeBuffers, scaleGroups } from "../matrix/packed_matrix.ts";
import { whole } from "../gpu/plane.ts";
import { joinShader, type Shader } from "../gpu/shader.ts";
import { submitWeightParts, type Weights } from "../matrix/weight_parts.ts";
import * as wgsl from "./wgsl.ts";

/** Rows of a workgroup of all these kernels. */
export const WORKGROUP_ROWS = 64;

export interface QuantizingMatrix {
  /** Output rows, a multiple of 4. */
  readonly rows: number;
  /** Input channels, a multiple of 16. */
  readonly channels: number;
  /** Groups of a row, with padding. */
  readonly groups: number;
  readonly refineEvery: RefineEvery;
  /** u32 [channels / 16]: the group at each position of the order of quantization. */
  readonly groupOrder: GPUBuffer;
  /** f32 [channels, rows]: the weights, or their target, in that order; error feedback replaces them by their errors. */
  readonly transposed: GPUBuffer;
  /** f32 [channels]: how much squared errors count where there is no feedback, in the natural order. */
  readonly channelWeights: GPUBuffer;
  /** f32 [groups]: how much each group counts where refined ones are picked. */
  readonly groupWeights: GPUBuffer;
  /** f32 [3, groups, rows]: see probe_groups.wgsl. */
  readonly prospects: GPUBuffer;
  /** u32 [runs, rows]: see pick_refined.wgsl. */
  readonly picks: GPUBuffer;
  /** Whether `picks` were given. */
  readonly hasPicks: boolean;
  /** Which weights become outliers. */
  readonly outliers: OutlierSettings;
  /** u32 [groups, rows]: scale and zero codes, and what is stored of an outlier: see pick_outliers.wgsl. */
  readonly groupCodes: GPUBuffer;
  readonly planes: PackedSlab;
}

/** @throws {RangeError} where the device doesn't quantize matrices of this shape */
export function checkQuantizable(rows: number, channels: number): void {
  if (channels % GROUP_CHANNELS !== 0) {
    throw new RangeError(`matrix has ${channels} channels, must be a multiple of ${GROUP_CHANNELS} on the device`);
  }
  if (rows % 4 !== 0) throw new RangeError(`matrix has ${rows} rows, must be a multiple of 4 on the device`);
}

/** Makes the buffers of a matrix. @param scope frees them, but for the planes, which belong to the caller */
export async function createQuantizingMatrix(
  gpu: Gpu,
  scope: BufferScope,
  [rows, channels]: readonly [rows: number, channels: number],
  { refineEvery, groupOrder, transposed, channelWeights, picks, outliers }:
    & Pick<QuantizingMatrix, "refineEvery" | "groupOrder" | "transposed" | "outliers">
    & { readonly channelWeights: Float64Array | undefined; readonly picks: Uint32Array<ArrayBuffer> | undefined },
): Promise<QuantizingMatrix> {
  const groups = groupsPerRow(channels);
  const runs = refineWordsPerRow(groups, refineEvery);
  const words = (label: string, count: number) => scope.storage(label, 4 * Math.max(4, count));
  const plane = async (label: string, count: number) =>
    whole(await gpu.createStorage(label, 16 * Math.max(1, Math.ceil(count / 4))));
  return {
    rows,
    channels,
    groups,
    refineEvery,
    groupOrder,
    transposed,
    channelWeights: await scope.upload(
      "channel weights",
      Float32Array.from({ length: channels }, (_, channel) => channelWeights?.[channel] ?? 1),
    ),
    groupWeights: await scope.upload(
      "group weights",
      Float32Array.from({ length: groups }, (_, group) => meanOf(channelWeights, group)),
    ),
    prospects: await words("prospects", 3 * groups * rows),
    picks: picks ? await scope.upload("picks", picks) : await words("picks", runs * rows),
    hasPicks: picks !== undefined,
    outliers,
    groupCodes: await words("group codes", groups * rows),
    planes: {
      firstRow: 0,
      rows,
      base: await plane("base", rows * groups),
      refine: await plane("refine", rows * runs),
      meta: await plane("meta", rows * halfBlocksPerRow(channels)),
      tileScale: await plane("tileScale", (Math.ceil(rows / TILE_ROWS) * scaleGroups(groups)) / 2),
      outliers: await plane("outliers", 4),
      ...NO_OUTLIERS,
    },
  };
}

export function groupConstants({ rows, groups, refineEvery }: QuantizingMatrix): Record<string, number> {
  return { rows, groups, refine_every: refineEvery === "none" ? 0 : refineEvery };
}

/** Whether a matrix may have outliers at all. */
export function mayHaveOutliers({ outliers, channels }: Pick<QuantizingMatrix, "outliers" | "channels">): boolean {
  return outliersOf(outliers, TILE_ROWS, channels) > 0;
}

/** Outliers of some rows, as quant/outliers.ts counts them. */
export function outliersOf({ share }: OutlierSettings, rows: number, channels: number): number {
  return Math.round(share * rows * channels);
}

/** Override constants of the kernels that round groups. */
export function roundingConstants(matrix: QuantizingMatrix): Record<string, number> {
  return { ...groupConstants(matrix), has_outliers: mayHaveOutliers(matrix) ? 1 : 0 };
}

/** Buffers of a matrix by the names that shaders give them: those that this one binds. */
export function groupBuffers({ bindings }: Shader, matrix: QuantizingMatrix): NamedBuffers {
  const { groupOrder, transposed, channelWeights, groupWeights, prospects, picks, groupCodes, planes } = matrix;
  const all = {
    group_order: groupOrder,
    transposed,
    channel_weights: channelWeights,
    group_weights: groupWeights,
    prospects,
    picks,
    group_codes: groupCodes,
    ...planeBuffers(planes),
  };
  return Object.fromEntries(Object.entries(all).filter(([name]) => bindings.has(name)));
}

/** A dispatch of `lines` threads, 64 a workgroup, by `depth`. */
export function launch(
  gpu: Gpu,
  shader: Shader,
  matrix: QuantizingMatrix,
  [lines, depth]: readonly [lines: number, depth: number],
  constants: Constants = groupConstants(matrix),
): Promise<Dispatch> {
  const workgroups = [Math.ceil(lines / WORKGROUP_ROWS), depth, 1] as const;
  return gpu.makeDispatch(shader, { constants, buffers: groupBuffers(shader, matrix), workgroups });
}

/**
 * Adds a matrix, transposed, to what is in `transposed`: see transpose_weights.wgsl.
 *
 * @param weights f32 [rows, channels], channels a multiple of 16
 * @param channelOrder u32 [channels]: the channel at each position
 * @param transposed f32 [channels, rows]
 */
export async function transposeWeights(
  gpu: Gpu,
  [rows, channels]: readonly [rows: number, channels: number],
  weights: Weights,
  channelOrder: GPUBuffer,
  transposed: GPUBuffer,
): Promise<void> {
  await submitWeightParts(
    gpu,
    [rows, channels],
    weights,
    (part) =>
      gpu.makeDispatch(joinShader(wgsl, "transpose_weights"), {
        constants: { rows, channels },
        buffers: { part: part.range, weights: part.weights, channel_order: channelOrder, transposed },
        workgroups: [Math.ceil(part.rows / WORKGROUP_ROWS), channels / GROUP_CHANNELS, 1],
      }),
  );
}

/** Dispatch that searches every group's codes by itself. */
export function searchGroups(gpu: Gpu, matrix: QuantizingMatrix): Promise<Dispatch> {
  const lines = [matrix.rows, matrix.channels / GROUP_CHANNELS] as const;
  return launch(gpu, joinShader(wgsl, "search_groups"), matrix, lines, roundingConstants(matrix));
}

/** Dispatch that packs the meta words, once all groups have their codes. */
export function packMetaWords(gpu: Gpu, matrix: QuantizingMatrix): Promise<Dispatch> {
  return launch(gpu, joinShader(wgsl, "pack_meta"), matrix, [matrix.rows, matrix.groups / 4]);
}

/** The packed matrix whose planes have been written. */
export function packedMatrixOf({ rows, channels, refineEvery, planes }: QuantizingMatrix): PackedMatrix {
  return { kind: "packed", rows, channels, refineEvery, halfBlocks: halfBlocksPerRow(channels), slabs: [planes] };
}
