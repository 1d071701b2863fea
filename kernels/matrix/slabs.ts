// What can be done with a matrix in slabs of rows whatever its format: every buffer it has is a binding of a slab.
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";

/** Rows of a slab are a multiple of this: whole tiles, and outputs that start at a legal binding offset. */
const SLAB_ROWS = 64;

/**
 * Rows of a slab.
 *
 * @param multiple that they are of
 * @throws {RangeError} when so many rows exceed the binding limit
 */
export function slabRowsWithin(maxBindingBytes: number, rowBytes: number, multiple: number = SLAB_ROWS): number {
  const rows = Math.floor(maxBindingBytes / rowBytes / multiple) * multiple;
  if (rows === 0) {
    throw new RangeError(`binding limit is ${maxBindingBytes} bytes, must hold ${multiple} rows of ${rowBytes} bytes`);
  }
  return rows;
}

/** A matrix in device memory; more than one slab where it exceeds the binding limit. */
export interface SlabMatrix {
  readonly rows: number;
  /** Its rows, in order, each with bindings. */
  readonly slabs: readonly { readonly firstRow: number }[];
}

/** Bindings of a slab by their names. */
function bindingsOf(slab: object): [name: string, binding: GPUBufferBinding][] {
  return Object.entries(slab).filter(([, value]) => value?.buffer !== undefined);
}

/** Buffers of a matrix; others may share them. */
export function buffersOf({ slabs }: SlabMatrix): GPUBuffer[] {
  return slabs.flatMap(bindingsOf).map(([, { buffer }]) => buffer);
}

/** Frees some matrices, which may share buffers; those that share buffers with them must be among them. */
export function destroyMatrices(gpu: Gpu, ...matrices: SlabMatrix[]): void {
  for (const buffer of new Set(matrices.flatMap(buffersOf))) gpu.destroyBuffer(buffer);
}

/** A matrix with the same weights in buffers of its own. @throws {OutOfMemoryError} when the device has no room */
export async function copyMatrix<M extends SlabMatrix>(gpu: Gpu, matrix: M): Promise<M> {
  const slabs = await allOrNone(gpu, async (scope) => {
    const copied: object[] = [];
    for (const slab of matrix.slabs) {
      const copy: Record<string, unknown> = { ...slab };
      for (const [name, binding] of bindingsOf(slab)) {
        const { buffer, offset = 0, size = buffer.size - offset } = binding;
        const own = await scope.storage(buffer.label, size);
        gpu.copy(buffer, offset, own, 0, size);
        copy[name] = { ...binding, buffer: own, offset: 0 };
      }
      copied.push(copy);
    }
    return copied;
  });
  return { ...matrix, slabs };
}

/** A matrix as consecutive rows of a larger output. */
export function placeRows<M extends SlabMatrix>(matrix: M, firstRow: number, rows: number): M {
  return { ...matrix, rows, slabs: matrix.slabs.map((slab) => ({ ...slab, firstRow: slab.firstRow + firstRow })) };
}

/** Matrices as the rows of one output, one after the other. */
export function placeParts<M extends SlabMatrix>(parts: readonly M[]): M[] {
  const rows = parts.reduce((sum, matrix) => sum + matrix.rows, 0);
  let end = 0;
  return parts.map((matrix) => {
    end += matrix.rows;
    return placeRows(matrix, end - matrix.rows, rows);
  });
}
