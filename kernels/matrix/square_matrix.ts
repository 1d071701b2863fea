// Square matrices on the device: Hessians and their factors, in slabs of rows where they exceed the binding limit.
import type { BufferScope } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { slabRowsWithin } from "./slabs.ts";

/** Rows that are moved at once (see factorize.ts); slabs hold whole panels. */
export const PANEL_ROWS = 256;

/** Rows of a square matrix in device memory. */
export interface SquareSlab {
  /** First row of the matrix that this slab holds. */
  readonly firstRow: number;
  readonly rows: number;
  /** f32 [rows, size]. */
  readonly buffer: GPUBuffer;
}

/** A square matrix in device memory. */
export interface SquareMatrix {
  readonly size: number;
  readonly slabs: readonly SquareSlab[];
}

/**
 * Makes a zeroed matrix.
 *
 * @param scope takes over its buffers
 * @param maxBindingBytes of a slab; default: the device's limit
 * @throws {RangeError} when 256 rows exceed the limit
 */
export async function createSquareMatrix(
  gpu: Gpu,
  scope: BufferScope,
  label: string,
  size: number,
  maxBindingBytes: number = gpu.device.limits.maxStorageBufferBindingSize,
): Promise<SquareMatrix> {
  const slabRows = slabRowsWithin(maxBindingBytes, 4 * size, PANEL_ROWS);
  const slabs: SquareSlab[] = [];
  for (let firstRow = 0; firstRow < size; firstRow += slabRows) {
    const rows = Math.min(slabRows, size - firstRow);
    slabs.push({ firstRow, rows, buffer: await scope.storage(label, 4 * rows * size) });
  }
  return { size, slabs };
}

/** The slab that holds a row, and the element at which that row begins there. */
export function placeOfRow({ size, slabs }: SquareMatrix, row: number): { slab: SquareSlab; first: number } {
  const slab = slabs.findLast(({ firstRow }) => firstRow <= row)!;
  return { slab, first: (row - slab.firstRow) * size };
}

/** The slabs that hold rows before `end`, each with how many. */
export function slabsBefore({ slabs }: SquareMatrix, end: number): { slab: SquareSlab; rows: number }[] {
  return slabs.filter(({ firstRow }) => firstRow < end)
    .map((slab) => ({ slab, rows: Math.min(slab.rows, end - slab.firstRow) }));
}

/** Reads a matrix back: f32 [size, size]. */
export async function readSquareMatrix(gpu: Gpu, { size, slabs }: SquareMatrix): Promise<Float32Array<ArrayBuffer>> {
  const matrix = new Float32Array(size * size);
  for (const { firstRow, rows, buffer } of slabs) {
    matrix.set(await gpu.readF32(buffer, rows * size), firstRow * size);
  }
  return matrix;
}
