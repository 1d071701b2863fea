/**
 * Launcher of the kernel between the MLP's two products.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { PrefillRange } from "./prefill_range.ts";
import kernelCode from "./silu_product.wgsl" with { type: "text" };
import rangeCode from "./parts/prefill_range.wgsl" with { type: "text" };

/** The whole shader. */
export const SILU_PRODUCT_CODE: string = [kernelCode, rangeCode].join("\n");

/**
 * Dispatch that computes y = silu(gate) * up.
 *
 * @param width elements of gate, and of up
 * @param x f32 [tokens, 2 * width]: gate, then up
 * @param y f32 [tokens, width]
 */
export async function siluProduct(
  gpu: Gpu,
  range: PrefillRange,
  width: number,
  x: GPUBuffer,
  y: GPUBuffer | GPUBufferBinding,
): Promise<Dispatch> {
  const kernel = await gpu.createKernel("silu_product", SILU_PRODUCT_CODE, { width });
  const bindings = gpu.bind(kernel, [range.buffer, x, y]);
  return { kernel, bindings, workgroups: [Math.ceil(width / 256), range.maxTokens, 1] };
}
