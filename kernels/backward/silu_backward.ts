// Launcher of the kernel that makes the gradients of the MLP's activation.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import * as wgsl from "./wgsl.ts";

/**
 * Dispatch that puts the gradients of gate and up in their place, of y = silu(gate) * up.
 *
 * @param width elements of gate, and of up
 * @param x f32 [tokens, 2 * width]: gate, then up
 * @param yGradient f32 [tokens, width]
 */
export async function siluBackward(
  gpu: Gpu,
  range: TokenRange,
  width: number,
  x: GPUBuffer,
  yGradient: GPUBuffer,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "silu_backward"), {
    constants: { width },
    buffers: { range: range.buffer, x, y_gradient: yGradient },
    workgroups: [Math.ceil(width / 256), 1, range.maxTokens],
  });
}
