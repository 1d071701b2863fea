// Layers that share the buffers of their planes, so that one kernel can take several of them.
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { F16Matrix } from "./f16_matrix.ts";
import type { PackedMatrix } from "./packed_matrix.ts";
import type { Plane } from "../gpu/plane.ts";
import { destroyMatrices } from "./slabs.ts";

/** Offsets of bindings are multiples of this in every implementation. */
const ALIGNMENT_BYTES = 256;

/** Names of the planes of a slab, in the order in which they lie side by side. */
export const PLANES = { packed: ["base", "refine", "meta", "tileScale", "outliers"], f16: ["weights"] } as const;
/** Those whose size doesn't follow the density or the number of outliers: it is the same in all layers. */
const ALIKE: readonly string[] = ["base", "meta", "tileScale", "weights"];

/** A matrix of a layer: all layers of a model have matrices of one format. */
export type LayerMatrix = PackedMatrix | F16Matrix;

/** Layers of the same matrices, whose planes lie one after the other in buffers that they share. */
export interface LayerArena<Matrix extends LayerMatrix = LayerMatrix> {
  readonly layers: readonly (readonly Matrix[])[];
  /** Bytes from a layer to the next: in the planes base, meta and tileScale, or of f16 in its one. */
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
export async function sharePlanes<Matrix extends LayerMatrix>(
  gpu: Gpu,
  layers: readonly (readonly Matrix[])[],
): Promise<LayerArena<Matrix> | undefined> {
  if (!layers.every((layer) => layer.every(({ slabs }) => slabs.length === 1) && areAlike(layer, layers[0]))) return;
  const names = PLANES[layers[0][0].kind];
  const places = placePlanes(names, layers.flat());
  const limit = gpu.device.limits.maxStorageBufferBindingSize;
  if (places.some(({ sizeBytes }) => sizeBytes > limit)) return;
  const buffers = await allOrNone(gpu, async (scope) => {
    const made: GPUBuffer[] = [];
    for (const [i, { sizeBytes }] of places.entries()) made.push(await scope.storage(names[i], sizeBytes));
    return made;
  });
  const move = (matrix: Matrix, index: number): Matrix => {
    const shared = names.map((name, i) => {
      const plane = planeOf(matrix, name);
      const offset = places[i].offsets[index];
      gpu.copy(plane.buffer, plane.offset, buffers[i], offset, plane.size);
      return [name, { buffer: buffers[i], offset, size: plane.size } satisfies Plane] as const;
    });
    destroyMatrices(gpu, matrix);
    return { ...matrix, slabs: [{ ...matrix.slabs[0], ...Object.fromEntries(shared) }] };
  };
  const matrices = layers[0].length;
  const alike = places.filter((_, i) => ALIKE.includes(names[i]));
  return {
    layers: layers.map((layer, l) => layer.map((matrix, m) => move(matrix, l * matrices + m))),
    strides: alike.map(({ sizeBytes }) => sizeBytes / layers.length),
    offsets: layers[0].map((_, m) => alike.map(({ offsets }) => offsets[m])),
    buffers,
  };
}

function areAlike(a: readonly LayerMatrix[], b: readonly LayerMatrix[]): boolean {
  return a.length === b.length &&
    a.every(({ kind, rows, channels }, i) => kind === b[0].kind && rows === b[i].rows && channels === b[i].channels);
}

/** A plane of a matrix of one slab, by its name. */
export function planeOf({ slabs: [slab] }: LayerMatrix, name: string): Plane {
  return (slab as unknown as Readonly<Record<string, Plane>>)[name];
}

/** Where each matrix's part of each plane lies. */
function placePlanes(names: readonly string[], matrices: readonly LayerMatrix[]) {
  return names.map((name) => {
    let sizeBytes = 0;
    const offsets = matrices.map((matrix) => {
      const offset = sizeBytes;
      sizeBytes += Math.ceil(planeOf(matrix, name).size / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
      return offset;
    });
    return { offsets, sizeBytes };
  });
}
