/**
 * Which tokens of a sequence the prefill kernels work on.
 *
 * @module
 */
import type { Gpu } from "../gpu/gpu.ts";

/**
 * Consecutive tokens of a sequence, which may be one of several in a cache. Kernels take their number from the buffer,
 * so pipelines and bindings serve any number up to that for which their dispatches were made: rewrite the buffer and
 * submit the same dispatches again.
 */
export interface TokenRange {
  /** Uniform: u32 number of tokens, u32 position of the first, u32 index of the sequence in its cache. */
  readonly buffer: GPUBuffer;
  /** The most tokens that dispatches made with this range cover. */
  readonly maxTokens: number;
}

/** Makes a range of `maxTokens` tokens from position 0. */
export async function createTokenRange(gpu: Gpu, maxTokens: number): Promise<TokenRange> {
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const range = { buffer: await gpu.createBuffer("range", 12, usage), maxTokens };
  setTokenRange(gpu, range, maxTokens, 0);
  return range;
}

/**
 * Writes a range, for what is submitted from now on.
 *
 * @throws {RangeError} when there are no tokens, or more than dispatches cover
 */
export function setTokenRange(
  gpu: Gpu,
  range: TokenRange,
  tokens: number,
  firstPosition: number,
  sequence = 0,
): void {
  if (!(tokens >= 1 && tokens <= range.maxTokens)) {
    throw new RangeError(`range has ${tokens} tokens, must have 1 to ${range.maxTokens}`);
  }
  gpu.write(range.buffer, Uint32Array.of(tokens, firstPosition, sequence));
}
