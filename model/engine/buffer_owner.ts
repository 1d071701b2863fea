/**
 * Buffers that live and die together.
 *
 * @module
 */
import { allOrNone } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";

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
export function withOwner<T>(gpu: Gpu, make: (owner: BufferOwner) => Promise<T>): Promise<T> {
  return allOrNone(gpu, (scope) =>
    make({
      own: scope.own,
      make: (label, length) => scope.storage(label, length * 4),
      destroy: () => scope[Symbol.dispose](),
    }));
}
