// Small uniforms for many dispatches in one buffer.
import type { BufferScope } from "./buffer_scope.ts";
import type { Gpu } from "./gpu.ts";

/** Offsets of uniforms that every device takes. */
const ALIGN_BYTES = 256;

/** Words of a uniform that a kernel's struct may read. */
const UNIFORM_WORDS = 8;

/**
 * Uploads uniforms of at most 8 words each, all in one buffer.
 *
 * @param scope takes it over
 * @returns the binding of each
 */
export async function uploadUniforms(
  gpu: Gpu,
  scope: BufferScope,
  words: readonly (readonly number[])[],
): Promise<GPUBufferBinding[]> {
  const data = new Uint32Array(words.length * (ALIGN_BYTES / 4));
  words.forEach((values, i) => data.set(values, i * (ALIGN_BYTES / 4)));
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const buffer = scope.own(await gpu.createBuffer("uniforms", data.byteLength, usage));
  gpu.write(buffer, data);
  return words.map((_, i) => ({ buffer, offset: i * ALIGN_BYTES, size: UNIFORM_WORDS * 4 }));
}
