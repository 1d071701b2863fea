// Launchers of the kernels that change parameters: a step of Adam, and scales in f16 of what it changed.
import { type Dispatch, type Gpu, spreadWorkgroups } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import type { Plane } from "../gpu/plane.ts";
import * as wgsl from "./wgsl.ts";

const WORKGROUP_VALUES = 256;

/** Decay of the mean of gradients and of their squares, as the kernel has them. */
const DECAYS = [0.9, 0.95] as const;

export interface AdamBuffers {
  /** Uniform with {@linkcode adamWords}. */
  readonly step: GPUBuffer;
  /** f32 [count], cleared. */
  readonly gradient: GPUBuffer;
  /** f32 [count, 2]: means, zero before the first step. */
  readonly moments: GPUBuffer;
  /** f32 [count], changed. */
  readonly values: GPUBuffer;
}

/** What a step's uniform holds. @param step its number, from 1 on */
export function adamWords(rate: number, step: number): Float32Array<ArrayBuffer> {
  const [mean, square] = DECAYS.map((decay) => 1 - decay ** step);
  return Float32Array.of(rate / mean, 1 / square);
}

export async function adamStep(gpu: Gpu, count: number, buffers: AdamBuffers): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "adam"), {
    constants: { count },
    buffers: { ...buffers },
    workgroups: spreadWorkgroups(Math.ceil(count / WORKGROUP_VALUES)),
  });
}

/**
 * Dispatch that makes second-order scales: start * exp(change), in f16.
 *
 * @param start f16 [count]: scales as they were
 * @param change f32 [count]
 * @param tileScale f16 [count], written; count is even
 */
export async function scaleTiles(gpu: Gpu, start: GPUBuffer, change: GPUBuffer, tileScale: Plane): Promise<Dispatch> {
  const words = tileScale.size / 4;
  return await gpu.makeDispatch(joinShader(wgsl, "scale_tiles"), {
    constants: { words },
    buffers: { start, change, tile_scale: tileScale },
    workgroups: spreadWorkgroups(Math.ceil(words / WORKGROUP_VALUES)),
  });
}
