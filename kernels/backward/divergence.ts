// Launcher of the kernel that compares next-token distributions.
import type { Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import * as wgsl from "./wgsl.ts";

export interface Divergence {
  readonly vocabulary: number;
  /** Elements from a token's logits to the next one's. */
  readonly stride: number;
  /** f32 [tokens, stride]: logits of the distribution that is wanted. */
  readonly wanted: GPUBuffer;
  /** f32 [tokens]: how much each token counts. */
  readonly weights: NamedBuffers[string];
  /** f32 [tokens, stride]: the model's logits, replaced by their gradients. */
  readonly logits: GPUBuffer;
  /** f32 [tokens], written: weight times divergence, in nats. */
  readonly divergences: NamedBuffers[string];
}

/** Dispatch that finds the divergence of q = softmax(logits) from p = softmax(wanted), sum of p log(p / q), by token. */
export async function divergence(gpu: Gpu, range: TokenRange, buffers: Divergence): Promise<Dispatch> {
  const { vocabulary, stride, wanted, weights, logits, divergences } = buffers;
  return await gpu.makeDispatch(joinShader(wgsl, "divergence"), {
    constants: { vocabulary, stride },
    buffers: { range: range.buffer, wanted, weights, logits, divergences },
    workgroups: [1, 1, range.maxTokens],
  });
}
