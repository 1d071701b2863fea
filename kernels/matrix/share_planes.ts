/**
 * Packed matrices that share the buffers of their planes, so that one kernel can take several of them.
 *
 * @module
 */
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, type PackedSlab, planesOf } from "./packed_matrix.ts";
import type { Plane } from "../gpu/plane.ts";
import { destroyMatrices } from "./slabs.ts";

/** Offsets of bindings are multiples of this in every implementation. */
const ALIGNMENT_BYTES = 256;

/** Names of the planes, in the order of {@linkcode planesOf}. */
const PLANES = ["base", "refine", "meta", "tileScale", "outliers"] as const;

/**
 * Moves the planes of matrices into buffers that they share, one for each plane, and frees their own. Where a plane of
 * all would exceed the binding limit, or a matrix has several slabs, the matrices are returned as they are.
 *
 * @throws {OutOfMemoryError} when the device has no room for a copy; the matrices then still have their own
 */
export async function sharePlanes(gpu: Gpu, matrices: readonly PackedMatrix[]): Promise<readonly PackedMatrix[]> {
  if (matrices.length === 0) return matrices;
  const { maxStorageBufferBindingSize: limit } = gpu.device.limits;
  const places = placePlanes(matrices.flatMap(({ slabs }) => slabs));
  if (matrices.some(({ slabs }) => slabs.length !== 1) || places.some(({ sizeBytes }) => sizeBytes > limit)) {
    return matrices;
  }
  const buffers = await allOrNone(gpu, async (scope) => {
    const made: GPUBuffer[] = [];
    for (const [i, { sizeBytes }] of places.entries()) made.push(await scope.storage(PLANES[i], sizeBytes));
    return made;
  });
  return matrices.map((matrix, index) => {
    const [slab] = matrix.slabs;
    const shared = planesOf(slab).map((plane, i) => {
      const offset = places[i].offsets[index];
      gpu.copy(plane.buffer, plane.offset, buffers[i], offset, plane.size);
      return [PLANES[i], { buffer: buffers[i], offset, size: plane.size } satisfies Plane] as const;
    });
    destroyMatrices(gpu, matrix);
    return { ...matrix, slabs: [{ ...slab, ...Object.fromEntries(shared) }] };
  });
}

/** Where each slab's part of each plane lies. */
function placePlanes(slabs: readonly PackedSlab[]) {
  return PLANES.map((name) => {
    let sizeBytes = 0;
    const offsets = slabs.map((slab) => {
      const offset = sizeBytes;
      sizeBytes += Math.ceil(slab[name].size / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
      return offset;
    });
    return { offsets, sizeBytes };
  });
}
