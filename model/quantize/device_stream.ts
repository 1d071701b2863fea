/**
 * Calibration windows on their way through one model on the device (calibration.ts is the same on the CPU).
 *
 * @module
 */
import { addBias } from "../../kernels/tokens/add_bias.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { gemm } from "../../kernels/product/linear.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { placeRows } from "../../kernels/matrix/slabs.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { createTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import { whole } from "../../kernels/gpu/plane.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LayerVectors } from "../engine/engine_weights.ts";
import { attentionExtras, attentionShape } from "../engine/layer_operations.ts";
import { embedTokens } from "../llama/forward.ts";
import { type LinearKind, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { release } from "../host/release.ts";
import { rotationTable } from "../llama/rope.ts";
import type { Calibration } from "./quantizing_device.ts";

/** A layer on the device; matrices come as their stages are done. */
export interface DeviceLayer {
  /** Norms and biases. */
  readonly vectors: LayerVectors;
  /** Matrices of the stages so far. */
  readonly matrices: Map<LinearKind, WeightMatrix>;
}

/** One window of the calibration text in one model. */
export interface StreamWindow {
  /** Its tokens. */
  readonly range: TokenRange;
  /** f32 [tokens, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [tokens, width]: input of o or down, kept from their stage until they are quantized. */
  readonly kept: GPUBuffer;
  /** f32 [tokens, hidden]: normed input; one buffer serves all windows of a model, one after the other. */
  readonly normed: GPUBuffer;
}

/** What windows of all models go through the layers with. */
export interface StreamContext {
  /** The device. */
  readonly gpu: Gpu;
  /** The model. */
  readonly config: ModelConfig;
  /** f32 [tokens, (heads + 2 keyValueHeads) * headSize], or whatever else is [tokens, hidden] meanwhile. */
  readonly qkv: GPUBuffer;
  /** f32 [tokens, 2 * intermediate], or whatever else is [tokens, width of an input] meanwhile. */
  readonly gateUp: GPUBuffer;
  /** f32 [positions, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
  /** Keys and values of a window. */
  readonly cache: KeyValueCache;
}

/** Puts windows before the first layer of a model. */
export async function createWindows(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  { embedding, windows }: Calibration,
): Promise<StreamWindow[]> {
  const keptWidth = Math.max(config.heads * config.headSize, config.intermediate);
  const ranges = new Map<number, TokenRange>();
  const longest = Math.max(...windows.map(({ length }) => length));
  const normed = await scope.storage("normed", 4 * longest * config.hidden);
  const made: StreamWindow[] = [];
  for (const tokens of windows) {
    const range = ranges.get(tokens.length) ?? await createTokenRange(gpu, tokens.length);
    if (!ranges.has(tokens.length)) scope.own(range.buffer);
    ranges.set(tokens.length, range);
    const hidden = embedTokens(config, embedding, [{ tokens }]) as Float32Array<ArrayBuffer>;
    made.push({
      range,
      hidden: await scope.upload("hidden", hidden),
      kept: await scope.storage("kept input", 4 * tokens.length * keptWidth),
      normed,
    });
    release(hidden);
  }
  return made;
}

/** Makes the buffers that go with windows of at most so many tokens. */
export async function createStreamContext(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  longest: number,
): Promise<StreamContext> {
  const { hidden, heads, keyValueHeads, headSize, intermediate, rope } = config;
  const capacity = Math.ceil(longest / 64) * 64;
  const cacheBytes = 2 * keyValueHeads * headSize * capacity;
  return {
    gpu,
    config,
    qkv: await scope.storage("qkv", 4 * longest * Math.max(hidden, (heads + 2 * keyValueHeads) * headSize)),
    gateUp: await scope.storage("gate and up", 4 * longest * Math.max(hidden, heads * headSize, 2 * intermediate)),
    rotations: await scope.upload("rotations", rotationTable(rope, headSize, capacity, longest)),
    cache: {
      capacity,
      keys: whole(await scope.storage("keys", cacheBytes)),
      values: whole(await scope.storage("values", cacheBytes)),
    },
  };
}

/** Uploads the norms and biases of a layer. */
export async function uploadVectors(scope: BufferScope, layer: Layer): Promise<LayerVectors> {
  const { linears: { q_proj: q, k_proj: k, v_proj: v, o_proj: o }, queryNorm, keyNorm } = layer;
  const upload = (label: string, ...parts: readonly Float32Array[]) =>
    scope.upload(label, Float32Array.from(parts.flatMap((part) => [...part])));
  return {
    attentionNorm: await upload("attention norm", layer.attentionNorm),
    mlpNorm: await upload("mlp norm", layer.mlpNorm),
    ...(q.bias && k.bias && v.bias && { qkvBias: await upload("qkv bias", q.bias, k.bias, v.bias) }),
    ...(o.bias && { outputBias: await upload("output bias", o.bias) }),
    ...(queryNorm && keyNorm && { headNorm: await upload("head norms", queryNorm, keyNorm) }),
  };
}

/** Where the input of a stage's matrices lies once {@linkcode inputDispatches} has run. */
export function stageInputOf({ kept, normed }: StreamWindow, stage: number): GPUBuffer {
  return STAGES[stage].joinsResidual ? kept : normed;
}

/** Dispatches that make the input of a stage's matrices of a window that has come there; inputs of o and down are kept. */
export async function inputDispatches(
  { gpu, config }: StreamContext,
  { vectors }: DeviceLayer,
  { range, hidden: x, normed: y }: StreamWindow,
  stage: number,
): Promise<Dispatch[]> {
  const { input } = STAGES[stage];
  if (input !== "attentionNorm" && input !== "mlpNorm") return [];
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x, weight: vectors[input], y };
  return [await rmsNorm(gpu, range, norm)];
}

/** Dispatches that take a window that has come to a stage through its matrices. The stages of a layer come in order. */
export async function passDispatches(
  context: StreamContext,
  layer: DeviceLayer,
  window: StreamWindow,
  stage: number,
): Promise<Dispatch[]> {
  const { gpu, config, qkv, gateUp, rotations, cache } = context;
  const { range, hidden, kept } = window;
  const { name } = STAGES[stage];
  const outputs = { qkv, o: hidden, "gate+up": gateUp, down: hidden };
  const dispatches = [
    ...await inputDispatches(context, layer, window, stage),
    ...await products(gpu, layer, window, stage, outputs[name]),
  ];
  if (name === "qkv") {
    const shape = attentionShape(config);
    const rope = { qkv, rotations, cache, ...attentionExtras(config, layer.vectors) };
    dispatches.push(
      await ropeCache(gpu, shape, range, rope),
      await prefillAttention(gpu, shape, range, { qkv, cache, out: kept }),
    );
  }
  const { outputBias } = layer.vectors;
  if (name === "o" && outputBias) dispatches.push(await addBias(gpu, range, config.hidden, outputBias, hidden));
  if (name === "gate+up") dispatches.push(await siluProduct(gpu, range, config.intermediate, gateUp, kept));
  return dispatches;
}

/** Products of a stage's matrices with their input, into one output or added to the residual stream. */
async function products(
  gpu: Gpu,
  { matrices }: DeviceLayer,
  window: StreamWindow,
  stage: number,
  y: GPUBuffer,
): Promise<Dispatch[]> {
  const { linears, joinsResidual: addToY } = STAGES[stage];
  const parts = linears.map((kind) => matrices.get(kind)!);
  const rows = parts.reduce((sum, matrix) => sum + matrix.rows, 0);
  const dispatches: Dispatch[] = [];
  let firstRow = 0;
  for (const matrix of parts) {
    const placed = placeRows(matrix, firstRow, rows);
    dispatches.push(...await gemm(gpu, placed, { range: window.range, x: stageInputOf(window, stage), y, addToY }));
    firstRow += matrix.rows;
  }
  return dispatches;
}
