// Matrices of f16 weights on the device.
import { allOrNone } from "../gpu/buffer_scope.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type Plane, whole } from "../gpu/plane.ts";
import { slabRowsWithin } from "./slabs.ts";

/** Channels of one 16-byte load. */
export const CHUNK_CHANNELS = 8;

/** A matrix of f16 weights in host memory. */
export interface HalfMatrix {
  readonly kind: "f16";
  readonly rows: number;
  readonly channels: number;
  /** f16 [rows, channels]. */
  readonly weights: Float16Array<ArrayBuffer>;
}

/** Rows of an f16 matrix in device memory. */
export interface F16Slab {
  /** First row of the matrix that this slab holds. */
  readonly firstRow: number;
  /** Rows of this slab. */
  readonly rows: number;
  /** f16 [rows, chunks * 8], padded with zeros. */
  readonly weights: Plane;
}

/** An f16 matrix in device memory; more than one slab where it exceeds the binding limit. */
export interface F16Matrix {
  /** Format of its weights. */
  readonly kind: "f16";
  /** Output rows. */
  readonly rows: number;
  /** Input channels, without padding. */
  readonly channels: number;
  /** Chunks of 8 channels in a row. */
  readonly chunks: number;
  /** The rows, in order. */
  readonly slabs: readonly F16Slab[];
}

/**
 * Makes a zeroed f16 matrix.
 *
 * @param channels input channels; rows are padded to whole chunks of 8
 * @throws {RangeError} when 64 rows exceed the binding limit
 * @throws {OutOfMemoryError} when the device has no room; nothing of the matrix then stays there
 */
export async function createF16Matrix(
  gpu: Gpu,
  rows: number,
  channels: number,
  maxBindingBytes: number = gpu.device.limits.maxStorageBufferBindingSize,
): Promise<F16Matrix> {
  const chunks = Math.ceil(channels / CHUNK_CHANNELS);
  const rowBytes = chunks * CHUNK_CHANNELS * 2;
  const slabRows = slabRowsWithin(maxBindingBytes, rowBytes);
  const slabs = await allOrNone(gpu, async (scope) => {
    const made: F16Slab[] = [];
    for (let firstRow = 0; firstRow < rows; firstRow += slabRows) {
      const count = Math.min(slabRows, rows - firstRow);
      const buffer = await scope.storage("weights", count * rowBytes);
      made.push({ firstRow, rows: count, weights: whole(buffer) });
    }
    return made;
  });
  return { kind: "f16", rows, channels, chunks, slabs };
}

/** Uploads f16 weights [rows, channels]. */
export async function uploadF16Matrix(
  gpu: Gpu,
  weights: Float16Array<ArrayBuffer>,
  rows: number,
  channels: number,
  maxBindingBytes?: number,
): Promise<F16Matrix> {
  if (weights.length !== rows * channels) {
    throw new TypeError(`weights has ${weights.length} elements, must have ${rows} x ${channels}`);
  }
  await gpu.waitForWrites();
  const matrix = await createF16Matrix(gpu, rows, channels, maxBindingBytes);
  writeF16Rows(gpu, matrix, 0, weights);
  return matrix;
}

/** Writes rows of a matrix, f16 [rows, channels], from `firstRow` on. */
export function writeF16Rows(
  gpu: Gpu,
  { channels, chunks, slabs }: F16Matrix,
  firstRow: number,
  weights: Float16Array<ArrayBuffer>,
): void {
  const stride = chunks * CHUNK_CHANNELS;
  const endRow = firstRow + weights.length / channels;
  for (const slab of slabs) {
    const [from, to] = [Math.max(firstRow, slab.firstRow), Math.min(endRow, slab.firstRow + slab.rows)];
    if (from >= to) continue;
    let padded = weights.subarray((from - firstRow) * channels, (to - firstRow) * channels);
    if (stride !== channels) {
      const unpadded = padded;
      padded = new Float16Array((to - from) * stride);
      for (let row = 0; row < to - from; row++) {
        padded.set(unpadded.subarray(row * channels, (row + 1) * channels), row * stride);
      }
    }
    gpu.write(slab.weights.buffer, padded, (slab.weights.offset ?? 0) + (from - slab.firstRow) * stride * 2);
  }
}

/** Uploads a vector as f16, padded with zeros to whole chunks. */
export function uploadF16Vector(gpu: Gpu, x: Float32Array): Promise<GPUBuffer> {
  const padded = new Float16Array(Math.ceil(x.length / CHUNK_CHANNELS) * CHUNK_CHANNELS);
  padded.set(x);
  return gpu.uploadStorage("x", padded);
}
