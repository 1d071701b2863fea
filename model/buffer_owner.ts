/**
 * Buffers that live and die together.
 *
 * @module
 */
import type { Gpu } from "../kernels/gpu.ts";

/** Buffers of one owner. */
export interface BufferOwner {
  /** Takes a buffer over. */
  own(buffer: GPUBuffer): GPUBuffer;
  /** Makes a storage buffer of 4-byte elements. */
  make(label: string, length: number): Promise<GPUBuffer>;
  /** Frees all buffers. */
  destroy(): void;
}

/** Makes something that owns buffers; where that fails, those made by then are freed. */
export async function withOwner<T>(gpu: Gpu, make: (owner: BufferOwner) => Promise<T>): Promise<T> {
  const buffers: GPUBuffer[] = [];
  const owner: BufferOwner = {
    own(buffer) {
      buffers.push(buffer);
      return buffer;
    },
    make: async (label, length) => owner.own(await gpu.createStorage(label, length * 4)),
    destroy() {
      for (const buffer of buffers) gpu.destroyBuffer(buffer);
    },
  };
  try {
    return await make(owner);
  } catch (error) {
    owner.destroy();
    throw error;
  }
}
