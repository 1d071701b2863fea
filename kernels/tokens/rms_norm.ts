/**
 * Launcher of the RMSNorm kernel.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "./prefill_range.ts";
import kernelCode from "./rms_norm.wgsl" with { type: "text" };
import rangeCode from "./parts/prefill_range.wgsl" with { type: "text" };
import sumCode from "../gpu/parts/sum_workgroup.wgsl" with { type: "text" };

/** The whole shader. */
export const RMS_NORM_CODE: string = [kernelCode, rangeCode, sumCode].join("\n");

/** Buffers and constants of {@linkcode rmsNorm}. */
export interface RmsNorm {
  /** Width of a token. */
  readonly hidden: number;
  /** Added under the root. */
  readonly epsilon: number;
  /** f32 [tokens, hidden]. */
  readonly x: GPUBuffer;
  /** f32 [hidden]. */
  readonly weight: GPUBuffer;
  /** f32 [tokens, hidden], written; not x. */
  readonly y: GPUBuffer | GPUBufferBinding;
}

/** Dispatch that normalizes each token: y = x / sqrt(mean(x²) + epsilon) * weight. */
export async function rmsNorm(gpu: Gpu, range: PrefillRange, norm: RmsNorm): Promise<Dispatch> {
  const { hidden, epsilon, x, weight, y } = norm;
  const kernel = await gpu.createKernel("rms_norm", RMS_NORM_CODE, { hidden, epsilon });
  const bindings = gpu.bind(kernel, [range.buffer, x, weight, y]);
  return { kernel, bindings, workgroups: [range.maxTokens, 1, 1] };
}
