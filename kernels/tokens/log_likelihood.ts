/**
 * Launcher of the kernel that scores tokens where the logits are, so that only 8 bytes a token are read back.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "./prefill_range.ts";
import kernelCode from "./log_likelihood.wgsl" with { type: "text" };
import rangeCode from "./parts/prefill_range.wgsl" with { type: "text" };
import sumCode from "../gpu/parts/sum_workgroup.wgsl" with { type: "text" };

/** The whole shader. */
export const LOG_LIKELIHOOD_CODE: string = [kernelCode, rangeCode, sumCode].join("\n");

/** Buffers of {@linkcode logLikelihood}. */
export interface LogLikelihood {
  /** Tokens of the vocabulary. */
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
export async function logLikelihood(gpu: Gpu, range: PrefillRange, buffers: LogLikelihood): Promise<Dispatch> {
  const { vocabulary, logits, targets, logLikelihoods, best } = buffers;
  const kernel = await gpu.createKernel("log_likelihood", LOG_LIKELIHOOD_CODE, { vocabulary });
  const bindings = gpu.bind(kernel, [range.buffer, logits, targets, logLikelihoods, best]);
  return { kernel, bindings, workgroups: [range.maxTokens, 1, 1] };
}
