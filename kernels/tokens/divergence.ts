/**
 * Launcher of the kernel that compares predictions with those of a reference where the logits are.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "./token_range.ts";
import * as wgsl from "./wgsl.ts";

/** Buffers of {@linkcode divergence}. */
export interface Divergence {
  /** Tokens of the vocabulary. */
  readonly vocabulary: number;
  /** f32 [tokens, vocabulary]: logits of the reference. */
  readonly reference: GPUBuffer;
  /** f32 [tokens, vocabulary]. */
  readonly logits: GPUBuffer;
  /** f32 [tokens], written: KL(reference || logits) in nats. */
  readonly divergences: GPUBuffer | GPUBufferBinding;
}

/** Dispatch that finds the divergence of each token. */
export async function divergence(gpu: Gpu, range: TokenRange, buffers: Divergence): Promise<Dispatch> {
  const { vocabulary, reference, logits, divergences } = buffers;
  return await gpu.makeDispatch(joinShader(wgsl, "divergence"), {
    constants: { vocabulary },
    buffers: { range: range.buffer, reference, logits, divergences },
    workgroups: [1, 1, range.maxTokens],
  });
}
