// Which tokens of a sequence, or of some side by side, the prefill kernels work on.
import type { Gpu } from "../gpu/gpu.ts";

/**
 * Consecutive tokens of a sequence, which may be one of several in a cache, or as many of each of neighbours there, which
 * lie one after the other: attention alone tells sequences apart. Kernels take their number from the buffer,
 * so pipelines and bindings serve any number up to that for which their dispatches were made: rewrite the buffer and
 * submit the same dispatches again.
 */
export interface TokenRange {
  /** Uniform: see tokens/parts/token_range.wgsl. */
  readonly buffer: GPUBuffer;
  /** The most tokens that dispatches made with this range cover. */
  readonly maxTokens: number;
  /** The most sequences, each with an equal share of the tokens. */
  readonly sequences: number;
}

/**
 * Makes a range of `maxTokens` tokens of some sequences together, from position 0.
 *
 * @throws {RangeError} when sequences have no equal share
 */
export async function createTokenRange(gpu: Gpu, maxTokens: number, sequences = 1): Promise<TokenRange> {
  if (maxTokens % sequences !== 0) {
    throw new RangeError(`range has ${maxTokens} tokens of ${sequences} sequences, must have as many of each`);
  }
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const range = { buffer: await gpu.createBuffer("range", 16, usage), maxTokens, sequences };
  setTokenRange(gpu, range, maxTokens, 0);
  return range;
}

/**
 * Writes a range, for what is submitted from now on. Of several sequences the first ones take part, as many as `tokens` are
 * enough for.
 *
 * @param firstPosition of each sequence
 * @param sequence index of the first
 * @throws {RangeError} when there are no tokens, or more than dispatches cover
 */
export function setTokenRange(gpu: Gpu, range: TokenRange, tokens: number, firstPosition: number, sequence = 0): void {
  if (!(tokens >= 1 && tokens <= range.maxTokens)) {
    throw new RangeError(`range has ${tokens} tokens, must have 1 to ${range.maxTokens}`);
  }
  const sequenceTokens = range.sequences === 1 ? tokens : range.maxTokens / range.sequences;
  gpu.write(range.buffer, Uint32Array.of(tokens, firstPosition, sequence, sequenceTokens));
}
