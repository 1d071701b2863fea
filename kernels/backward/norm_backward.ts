// Launchers of the kernels that make the gradients of RMSNorm.
import type { Dispatch, Gpu, NamedBuffers } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import * as wgsl from "./wgsl.ts";

/** Tokens whose share of the weight's gradient is summed by one workgroup. */
const PART_TOKENS = 32;

export interface RmsNormBackward {
  readonly hidden: number;
  readonly epsilon: number;
  /** f32 [tokens, hidden]: the norm's input. */
  readonly x: NamedBuffers[string];
  /** f32 [hidden]. */
  readonly weight: GPUBuffer;
  /** f32 [tokens, hidden]: gradient of the norm's output. */
  readonly yGradient: NamedBuffers[string];
  /** f32 [tokens, hidden]: gradient of its input, added to. */
  readonly xGradient: NamedBuffers[string];
  /** f32 [hidden]: gradient of the weight, added to. */
  readonly weightGradient: GPUBuffer;
  /** f32 of {@linkcode partialsBytes}: overwritten. */
  readonly partials: GPUBuffer;
}

/** Bytes of the partial sums for so many tokens. */
export function partialsBytes(tokens: number, hidden: number): number {
  return 4 * Math.ceil(tokens / PART_TOKENS) * hidden;
}

/** Dispatches that add the gradients of a norm's input and of its weight, for as many tokens as the range may have. */
export async function rmsNormBackward(gpu: Gpu, range: TokenRange, norm: RmsNormBackward): Promise<Dispatch[]> {
  const { hidden, epsilon, x, weight, yGradient, xGradient, weightGradient, partials } = norm;
  const parts = Math.ceil(range.maxTokens / PART_TOKENS);
  return [
    await gpu.makeDispatch(joinShader(wgsl, "rms_norm_backward"), {
      constants: { hidden, epsilon, part_tokens: PART_TOKENS },
      buffers: { range: range.buffer, x, weight, y_gradient: yGradient, x_gradient: xGradient, partials },
      workgroups: [parts, 1, 1],
    }),
    await gpu.makeDispatch(joinShader(wgsl, "add_partials"), {
      constants: { parts, width: hidden },
      buffers: { partials, sums: weightGradient },
      workgroups: [Math.ceil(hidden / 64), 1, 1],
    }),
  ];
}
