// Buffers that are freed together.
import type { Gpu } from "./gpu.ts";

/** Makes buffers and frees them all when it is disposed; submitted work still finishes with them. */
export interface BufferScope extends Disposable {
  storage(label: string, sizeBytes: number): Promise<GPUBuffer>;
  upload(label: string, data: ArrayBufferView<ArrayBuffer>): Promise<GPUBuffer>;
  own(buffer: GPUBuffer): GPUBuffer;
  free(buffer: GPUBuffer): void;
}

export function createBufferScope(gpu: Gpu): BufferScope {
  const owned = new Set<GPUBuffer>();
  const own = (buffer: GPUBuffer) => {
    owned.add(buffer);
    return buffer;
  };
  return {
    storage: async (label, sizeBytes) => own(await gpu.createStorage(label, sizeBytes)),
    upload: async (label, data) => own(await gpu.uploadStorage(label, data)),
    own,
    free(buffer) {
      owned.delete(buffer);
      gpu.destroyBuffer(buffer);
    },
    [Symbol.dispose]() {
      for (const buffer of owned) gpu.destroyBuffer(buffer);
      owned.clear();
    },
  };
}

/** Makes buffers that outlive the scope; where making one fails, those made before it are freed. */
export async function allOrNone<T>(gpu: Gpu, make: (scope: BufferScope) => Promise<T>): Promise<T> {
  const scope = createBufferScope(gpu);
  try {
    return await make(scope);
  } catch (error) {
    scope[Symbol.dispose]();
    throw error;
  }
}
