// Launcher of the kernel that scores tokens where the logits are, so that only 8 bytes a token are read back.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

export interface LogLikelihood {
  readonly vocabulary: number;
  /** f32 [tokens, vocabulary]. */
  readonly logits: GPUBuffer;
  /** u32 [tokens]: the token that followed each; one outside the vocabulary counts as the last. */
  readonly targets: GPUBuffer | GPUBufferBinding;
  /** f32 [tokens], written: natural logarithm of the target's probability. */
  readonly logLikelihoods: GPUBuffer | GPUBufferBinding;
  /** u32 [tokens], written: the most likely token, the first of equals. */
  readonly best: GPUBuffer | GPUBufferBinding;
}

/** Dispatch that scores the target of each token. */
export async function logLikelihood(gpu: Gpu, range: TokenRange, buffers: LogLikelihood): Promise<Dispatch> {
  const { vocabulary, logits, targets, logLikelihoods, best } = buffers;
  return await gpu.makeDispatch(joinShader(wgsl, "log_likelihood"), {
    constants: { vocabulary },
    buffers: { range: range.buffer, logits, targets, log_likelihoods: logLikelihoods, best },
    workgroups: [1, 1, range.maxTokens],
  });
}
