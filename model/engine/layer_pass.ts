/**
 * A layer for several tokens at once, all but how they attend: tokens of one sequence, or one of each of several.
 *
 * @module
 */
import { addBias } from "../../kernels/tokens/add_bias.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm } from "../../kernels/product/linear.ts";
import type { PrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { BufferOwner } from "./buffer_owner.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { EngineLayer, JoinedLinear } from "./engine_weights.ts";

/** Buffers for T tokens. */
export interface PassBuffers {
  /** u32 [T]. */
  readonly tokens: GPUBuffer;
  /** f32 [T, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [T, hidden]. */
  readonly normed: GPUBuffer;
  /** f32 [T, (heads + 2 keyValueHeads) * headSize]. */
  readonly qkv: GPUBuffer;
  /** f32 [T, heads * headSize]. */
  readonly mixed: GPUBuffer;
  /** f32 [T, 2 * intermediate]. */
  readonly gateUp: GPUBuffer;
  /** f32 [T, intermediate]. */
  readonly inner: GPUBuffer;
}

/** Makes buffers for `tokens` tokens. @throws {OutOfMemoryError} when the device has no room */
export async function createPassBuffers(
  owner: BufferOwner,
  config: ModelConfig,
  tokens: number,
): Promise<PassBuffers> {
  const make = (label: string, width: number) => owner.make(label, tokens * width);
  const { hidden, heads, keyValueHeads, headSize, intermediate } = config;
  return {
    tokens: await make("tokens", 1),
    hidden: await make("hidden", hidden),
    normed: await make("normed", hidden),
    qkv: await make("qkv", (heads + 2 * keyValueHeads) * headSize),
    mixed: await make("mixed", heads * headSize),
    gateUp: await make("gate and up", 2 * intermediate),
    inner: await make("inner", intermediate),
  };
}

/**
 * Dispatches of a layer, which add to the residual stream.
 *
 * @param attend dispatches that make `mixed` from `qkv`
 * @param multiply {@linkcode gemm}, or `multiplyFew` for few tokens
 */
export async function layerPass(
  gpu: Gpu,
  config: ModelConfig,
  layer: EngineLayer,
  range: PrefillRange,
  buffers: PassBuffers,
  attend: readonly Dispatch[],
  multiply: typeof gemm = gemm,
): Promise<Dispatch[]> {
  const { hidden, normed, qkv, mixed, gateUp, inner } = buffers;
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x: hidden, y: normed };
  const joined = async (linear: JoinedLinear, x: GPUBuffer, y: GPUBuffer, addToY = false) =>
    (await Promise.all(linear.map((matrix) => multiply(gpu, matrix, { range, x, y, addToY })))).flat();
  return [
    await rmsNorm(gpu, range, { ...norm, weight: layer.attentionNorm }),
    ...await joined(layer.qkv, normed, qkv),
    ...attend,
    ...await joined(layer.o, mixed, hidden, true),
    ...(layer.outputBias ? [await addBias(gpu, range, config.hidden, layer.outputBias, hidden)] : []),
    await rmsNorm(gpu, range, { ...norm, weight: layer.mlpNorm }),
    ...await joined(layer.gateUp, normed, gateUp),
    await siluProduct(gpu, range, config.intermediate, gateUp, inner),
    ...await joined(layer.down, inner, hidden, true),
  ];
}
