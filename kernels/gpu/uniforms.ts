/**
 * Small uniforms for many dispatches in one buffer.
 *
 * @module
 */
import type { Gpu } from "./gpu.ts";

/** Offsets of uniforms that every device takes. */
const ALIGN_BYTES = 256;

/** Words of a uniform that a kernel's struct may read. */
const UNIFORM_WORDS = 8;

/** Uniforms that lie in one buffer. */
export interface Uniforms {
  /** The buffer; whoever made the uniforms frees it. */
  readonly buffer: GPUBuffer;
  /** Binding of each uniform. */
  readonly bindings: readonly GPUBufferBinding[];
}

/** Uploads uniforms of at most 8 words each. */
export async function uploadUniforms(gpu: Gpu, words: readonly (readonly number[])[]): Promise<Uniforms> {
  const data = new Uint32Array(words.length * (ALIGN_BYTES / 4));
  words.forEach((values, i) => data.set(values, i * (ALIGN_BYTES / 4)));
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const buffer = await gpu.createBuffer("uniforms", data.byteLength, usage);
  gpu.write(buffer, data);
  return {
    buffer,
    bindings: words.map((_, i) => ({ buffer, offset: i * ALIGN_BYTES, size: UNIFORM_WORDS * 4 })),
  };
}
