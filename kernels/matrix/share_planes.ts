// Packed layers that share the buffers of their planes, so that one kernel can take several of them.
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type PackedMatrix, type PackedSlab, planesOf } from "./packed_matrix.ts";
import type { Plane } from "../gpu/plane.ts";
import { destroyMatrices } from "./slabs.ts";

/** Offsets of bindings are multiples of this in every implementation. */
const ALIGNMENT_BYTES = 256;

/** Names of the planes, in the order of {@linkcode planesOf}. */
const PLANES = ["base", "refine", "meta", "tileScale", "outliers"] as const;
/** Those whose size doesn't follow the density or the number of outliers: it is the same in all layers. */
const ALIKE = ["base", "meta", "tileScale"] as const;

/** Layers of the same matrices, whose planes lie one after the other in buffers that they share. */
export interface LayerArena {
  readonly layers: readonly (readonly PackedMatrix[])[];
  /** Bytes from a layer to the next, in the planes base, meta and tileScale. */
  readonly strides: readonly number[];
  /** For each matrix of a layer the bytes from the layer's start to it, in the same planes. */
  readonly offsets: readonly (readonly number[])[];
  /** The shared buffers, one for each plane. */
  readonly buffers: readonly GPUBuffer[];
}

/**
 * Moves the planes of layers into buffers that they share, one for each plane, and frees their own. Where a plane of
 * all would exceed the binding limit, a matrix has several slabs or layers aren't alike, nothing is moved or returned.
 *
 * @param layers the matrices of each
 * @throws {OutOfMemoryError} when the device has no room for a copy; the matrices then still have their own
 */
export async function sharePlanes(
  gpu: Gpu,
  layers: readonly (readonly PackedMatrix[])[],
): Promise<LayerArena | undefined> {
  if (!layers.every((layer) => layer.every(({ slabs }) => slabs.length === 1) && areAlike(layer, layers[0]))) return;
  const places = placePlanes(layers.flat().map(({ slabs: [slab] }) => slab));
  const limit = gpu.device.limits.maxStorageBufferBindingSize;
  if (places.some(({ sizeBytes }) => sizeBytes > limit)) return;
  const buffers = await allOrNone(gpu, async (scope) => {
    const made: GPUBuffer[] = [];
    for (const [i, { sizeBytes }] of places.entries()) made.push(await scope.storage(PLANES[i], sizeBytes));
    return made;
  });
  const move = (matrix: PackedMatrix, index: number): PackedMatrix => {
    const [slab] = matrix.slabs;
    const shared = planesOf(slab).map((plane, i) => {
      const offset = places[i].offsets[index];
      gpu.copy(plane.buffer, plane.offset, buffers[i], offset, plane.size);
      return [PLANES[i], { buffer: buffers[i], offset, size: plane.size } satisfies Plane] as const;
    });
    destroyMatrices(gpu, matrix);
    return { ...matrix, slabs: [{ ...slab, ...Object.fromEntries(shared) }] };
  };
  const matrices = layers[0].length;
  const alike = ALIKE.map((name) => places[PLANES.indexOf(name)]);
  return {
    layers: layers.map((layer, l) => layer.map((matrix, m) => move(matrix, l * matrices + m))),
    strides: alike.map(({ sizeBytes }) => sizeBytes / layers.length),
    offsets: layers[0].map((_, m) => alike.map(({ offsets }) => offsets[m])),
    buffers,
  };
}

function areAlike(a: readonly PackedMatrix[], b: readonly PackedMatrix[]): boolean {
  return a.length === b.length &&
    a.every(({ rows, channels }, i) => rows === b[i].rows && channels === b[i].channels);
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
