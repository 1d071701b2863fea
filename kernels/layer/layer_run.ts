// Layers of a decode step that a dispatch takes together, and what keeps them from it.
import { attentionRowLanes, type DecodeAttentionBuffers } from "../attention/decode_attention.ts";
import type { Gpu } from "../gpu/gpu.ts";
import type { AttentionShape } from "../attention/key_value_cache.ts";
import type { LayerArena, LayerMatrix } from "../matrix/share_planes.ts";
import type { ActivationBits } from "../product/pack_activations.ts";

/** Sizes that all layers of a model have in common. */
export interface LayerShape {
  /** Elements of the residual stream. */
  readonly hidden: number;
  /** Rows of gate, and of up. */
  readonly intermediate: number;
  /** Added under the roots of the layer's norms. */
  readonly normEpsilon: number;
  /** Heads of its attention. */
  readonly attention: AttentionShape;
  /** Bits of an activation that packed weights are multiplied with; 16 for f16 ones. Default: 16. */
  readonly activationBits?: ActivationBits;
}

/** What a layer of a decode step has beside its matrices; caches in one buffer lie one after the other. */
export interface DecodeLayer extends Pick<DecodeAttentionBuffers, "cache" | "bias" | "headNorm"> {
  /** f32 [hidden]: weight of the norm before q, k and v. */
  readonly attentionNorm: GPUBuffer;
  /** f32 [hidden]: weight of the norm before gate and up. */
  readonly mlpNorm: GPUBuffer;
}

/** Consecutive layers of an arena whose caches share their buffers. */
export interface LayerRun {
  /** Index of the first in the model. */
  readonly first: number;
  /** Matrices of each, in the order of the stages: q, k and v; o; gate and up; down. */
  readonly matrices: readonly (readonly LayerMatrix[])[];
  /** The layers. */
  readonly layers: readonly DecodeLayer[];
}

const STORAGE_BUFFERS = 16;

/** Cuts the layers of a model into runs. */
export function cutRuns(arenas: readonly LayerArena[], layers: readonly DecodeLayer[]): LayerRun[] {
  const runs: LayerRun[] = [];
  let first = 0;
  for (const arena of arenas) {
    const own = layers.slice(first, first + arena.layers.length);
    for (let start = 0, end = 0; start < own.length; start = end) {
      const { buffer } = own[start].cache.keys;
      while (end < own.length && own[end].cache.keys.buffer === buffer) end++;
      runs.push({ first: first + start, matrices: arena.layers.slice(start, end), layers: own.slice(start, end) });
    }
    first += own.length;
  }
  return runs;
}

/** Why a device runs no layers whole, whatever they are; undefined where it may. */
export function whyNeverWhole(gpu: Gpu): string | undefined {
  const { implementation, checksUniformity } = gpu.capabilities;
  const { maxStorageBuffersPerShaderStage: buffers } = gpu.device.limits;
  if (checksUniformity) {
    return `the WebGPU (${implementation}) must be Deno's: others refuse barriers between stages of variable size`;
  }
  return buffers < STORAGE_BUFFERS
    ? `a shader has ${buffers} storage buffers, must have ${STORAGE_BUFFERS}`
    : undefined;
}

/** Why layers don't suit the kernel, or the device doesn't; undefined where both do. */
export function whyNotWhole(gpu: Gpu, shape: LayerShape, arenas: readonly LayerArena[]): string | undefined {
  const { hidden, intermediate, attention: { heads, headSize } } = shape;
  const layers = arenas.reduce((sum, arena) => sum + arena.layers.length, 0);
  const [{ strides, offsets }] = arenas;
  const rowLanes = attentionRowLanes(shape.attention);
  const widths = [hidden, intermediate, heads * headSize, headSize];
  const uneven = widths.find((channels) => channels % 16 !== 0);
  const never = whyNeverWhole(gpu);
  if (never) return never;
  if (gpu.hasWaitedInVain) return "workgroups waited for each other in vain before";
  if (layers < 2) return `the model has ${layers} layer, must have 2 or more`;
  const { subgroupSize } = gpu.profile;
  if (subgroupSize < rowLanes || subgroupSize > 64) {
    return `the device's subgroups have ${subgroupSize} lanes, must have ${rowLanes} to 64`;
  }
  if (uneven !== undefined) return `a vector or head has ${uneven} channels, must have a multiple of 16`;
  const isAlike = (arena: LayerArena) => `${arena.strides}` === `${strides}` && `${arena.offsets}` === `${offsets}`;
  return arenas.every(isAlike) ? undefined : "layers have matrices of different sizes, must be alike";
}
