// Launcher of the kernel that makes the gradients of second-order scales.
import { GROUP_CHANNELS, tilesPerColumn } from "../../quant/format.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import { type PackedMatrix, planeBuffers } from "../matrix/packed_matrix.ts";
import * as wgsl from "./wgsl.ts";

const WORKGROUP_GROUPS = 16;

/**
 * Dispatch that adds, for each second-order scale of a packed matrix in one slab, the sum of dw * w over its weights: the
 * gradient of its logarithm.
 *
 * @param weightGradient f32 [rows, channels] of the output that the matrix has its place in; cleared where it was read
 * @param gradient f32 [tiles, scaleGroups], as the plane of scales
 * @throws {RangeError} when the matrix has several slabs, or channels that don't fill its groups
 */
export async function tileGradient(
  gpu: Gpu,
  matrix: PackedMatrix,
  weightGradient: GPUBuffer,
  gradient: GPUBuffer,
): Promise<Dispatch> {
  const { channels, halfBlocks, refineEvery, slabs: [slab] } = matrix;
  if (matrix.slabs.length !== 1 || channels % GROUP_CHANNELS !== 0) {
    throw new RangeError(
      `matrix has ${matrix.slabs.length} slabs of ${channels} channels, must have one of whole groups`,
    );
  }
  const { outlier_planes: _, ...planes } = planeBuffers(slab);
  const groups = channels / GROUP_CHANNELS;
  return await gpu.makeDispatch(joinShader(wgsl, "tile_gradient"), {
    constants: {
      rows: slab.rows,
      first_row: slab.firstRow,
      groups,
      half_blocks: halfBlocks,
      refine_every: refineEvery === "none" ? 0 : refineEvery,
    },
    buffers: { ...planes, weight_gradient: weightGradient, gradient },
    workgroups: [Math.ceil(groups / WORKGROUP_GROUPS), tilesPerColumn(slab.rows), 1],
  });
}
