// Launcher of the RMSNorm kernel.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

export interface RmsNorm {
  readonly hidden: number;
  readonly epsilon: number;
  /** f32 [tokens, hidden]. */
  readonly x: GPUBuffer | GPUBufferBinding;
  /** f32 [hidden]. */
  readonly weight: GPUBuffer;
  /** f32 [tokens, hidden], written; not x. */
  readonly y: GPUBuffer | GPUBufferBinding;
}

/** Dispatch that normalizes each token: y = x / sqrt(mean(x²) + epsilon) * weight. */
export async function rmsNorm(gpu: Gpu, range: TokenRange, norm: RmsNorm): Promise<Dispatch> {
  const { hidden, epsilon, x, weight, y } = norm;
  return await gpu.makeDispatch(joinShader(wgsl, "rms_norm"), {
    constants: { hidden, epsilon },
    buffers: { range: range.buffer, x, weight, y },
    workgroups: [1, 1, range.maxTokens],
  });
}
