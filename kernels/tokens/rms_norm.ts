// Launcher of the RMSNorm kernel.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { checkFours, foursConstants, foursPart } from "../gpu/fours.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

export interface RmsNorm {
  readonly hidden: number;
  readonly epsilon: number;
  /** f32 [tokens, hidden]. */
  readonly x: GPUBuffer | GPUBufferBinding;
  /** f32 [hidden]. */
  readonly weight: GPUBuffer;
  /** f32 [tokens, hidden], written; not x. Or in f16, in units of `unit`. */
  readonly y: GPUBuffer | GPUBufferBinding;
  /** Default: f32. */
  readonly unit?: number | undefined;
}

/**
 * Dispatch that normalizes each token: y = x / sqrt(mean(x²) + epsilon) * weight.
 *
 * @throws {RangeError} when `hidden` is not a multiple of 4
 */
export async function rmsNorm(gpu: Gpu, range: TokenRange, norm: RmsNorm): Promise<Dispatch> {
  const { hidden, epsilon, x, weight, y, unit } = norm;
  checkFours("hidden", hidden);
  return await gpu.makeDispatch(joinShader(wgsl, "rms_norm", foursPart(unit)), {
    constants: { hidden, epsilon, ...foursConstants(unit) },
    buffers: { range: range.buffer, x, weight, y },
    workgroups: [1, 1, range.maxTokens],
  });
}
