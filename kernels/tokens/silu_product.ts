// Launcher of the kernel between the MLP's two products.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import type { TokenRange } from "./token_range.ts";
import { checkFours, foursConstants, foursPart } from "../gpu/fours.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatch that computes y = silu(gate) * up.
 *
 * @param width elements of gate, and of up
 * @param x f32 [tokens, 2 * width]: gate, then up
 * @param y f32 [tokens, width]; or in f16, in units of `unit`
 * @throws {RangeError} when `width` is not a multiple of 4
 */
export async function siluProduct(
  gpu: Gpu,
  range: TokenRange,
  width: number,
  x: GPUBuffer,
  y: GPUBuffer | GPUBufferBinding,
  unit?: number,
): Promise<Dispatch> {
  checkFours("width", width);
  return await gpu.makeDispatch(joinShader(wgsl, "silu_product", foursPart(unit)), {
    constants: { width, ...foursConstants(unit) },
    buffers: { range: range.buffer, x, y },
    workgroups: [Math.ceil(width / 1024), 1, range.maxTokens],
  });
}
