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
import { type Plane, whole } from "../../kernels/gpu/plane.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LayerVectors } from "../engine/engine_weights.ts";
import { attentionExtras, attentionShape } from "../engine/layer_operations.ts";
import { widestOf } from "../tune/pass_buffers.ts";
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

/** Windows of equal length of the calibration text, side by side in one model: attention alone takes them one by one. */
export interface StreamWindows {
  /** How many. */
  readonly count: number;
  /** The tokens of one. */
  readonly windowRange: TokenRange;
  /** The tokens of all. */
  readonly range: TokenRange;
  /** f32 [tokens, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [tokens, width]: input of o or down, kept from their stage until they are quantized. */
  readonly kept: GPUBuffer;
  /** f32 [tokens, hidden]: normed input; one buffer serves all of a model, one after the other. */
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
  /** Keys and values, a sequence for each of the windows that lie side by side. */
  readonly cache: KeyValueCache;
}

/** Tokens that go side by side at most: more of them don't make products faster. */
const JOINED_TOKENS = 8192;

/** Bytes of the widest buffer of tokens that go side by side: of large models fewer windows do, which fill the device too. */
const JOINED_BYTES = 2 ** 27;

/** Windows of equal length begin where bindings may if they have a multiple of so many tokens. */
const ALIGNED_TOKENS = 64;

/** Shares windows out in order: neighbours of equal length go side by side, as many as make large products. */
export function joinWindows(config: ModelConfig, windows: readonly Uint32Array[]): Uint32Array[][] {
  const most = Math.min(JOINED_TOKENS, JOINED_BYTES / (4 * widestOf(config)));
  const joined: Uint32Array[][] = [];
  for (const window of windows) {
    const { length } = window;
    const last = joined.at(-1);
    const fits = last && last[0].length === length && length % ALIGNED_TOKENS === 0;
    if (fits && (last.length + 1) * length <= most) last.push(window);
    else joined.push([window]);
  }
  return joined;
}

/** Puts windows before the first layer of a model. */
export async function createWindows(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  embedding: Calibration["embedding"],
  joined: readonly (readonly Uint32Array[])[],
): Promise<StreamWindows[]> {
  const keptWidth = Math.max(config.heads * config.headSize, config.intermediate);
  const ranges = new Map<number, TokenRange>();
  const rangeOf = async (tokens: number) => {
    const range = ranges.get(tokens) ?? await createTokenRange(gpu, tokens);
    if (!ranges.has(tokens)) scope.own(range.buffer);
    ranges.set(tokens, range);
    return range;
  };
  const normed = await scope.storage("normed", 4 * mostTokens(joined) * config.hidden);
  const made: StreamWindows[] = [];
  for (const windows of joined) {
    const tokens = windows.length * windows[0].length;
    const hidden = embedTokens(config, embedding, windows.map((tokens) => ({ tokens }))) as Float32Array<ArrayBuffer>;
    made.push({
      count: windows.length,
      windowRange: await rangeOf(windows[0].length),
      range: await rangeOf(tokens),
      hidden: await scope.upload("hidden", hidden),
      kept: await scope.storage("kept input", 4 * tokens * keptWidth),
      normed,
    });
    release(hidden);
  }
  return made;
}

/** The most tokens that go side by side. */
function mostTokens(joined: readonly (readonly Uint32Array[])[]): number {
  return Math.max(...joined.map((windows) => windows.length * windows[0].length));
}

/** Makes the buffers that go with windows. */
export async function createStreamContext(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  joined: readonly (readonly Uint32Array[])[],
): Promise<StreamContext> {
  const { hidden, heads, keyValueHeads, headSize, intermediate, rope } = config;
  const tokens = mostTokens(joined);
  const longest = Math.max(...joined.map(([window]) => window.length));
  const capacity = Math.ceil(longest / 64) * 64;
  const cacheBytes = 2 * keyValueHeads * headSize * capacity * Math.max(...joined.map(({ length }) => length));
  return {
    gpu,
    config,
    qkv: await scope.storage("qkv", 4 * tokens * Math.max(hidden, (heads + 2 * keyValueHeads) * headSize)),
    gateUp: await scope.storage("gate and up", 4 * tokens * Math.max(hidden, heads * headSize, 2 * intermediate)),
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
export function stageInputOf({ kept, normed }: StreamWindows, stage: number): GPUBuffer {
  return STAGES[stage].joinsResidual ? kept : normed;
}

/** Dispatches that make the input of a stage's matrices of windows that have come there; inputs of o and down are kept. */
export async function inputDispatches(
  { gpu, config }: StreamContext,
  { vectors }: DeviceLayer,
  { range, hidden: x, normed: y }: StreamWindows,
  stage: number,
): Promise<Dispatch[]> {
  const { input } = STAGES[stage];
  if (input !== "attentionNorm" && input !== "mlpNorm") return [];
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x, weight: vectors[input], y };
  return [await rmsNorm(gpu, range, norm)];
}

/** Dispatches that take windows that have come to a stage through its matrices. The stages of a layer come in order. */
export async function passDispatches(
  context: StreamContext,
  layer: DeviceLayer,
  window: StreamWindows,
  stage: number,
): Promise<Dispatch[]> {
  const { gpu, config, qkv, gateUp } = context;
  const { range, hidden, kept } = window;
  const { name } = STAGES[stage];
  const outputs = { qkv, o: hidden, "gate+up": gateUp, down: hidden };
  const dispatches = [
    ...await inputDispatches(context, layer, window, stage),
    ...await products(gpu, layer, window, stage, outputs[name]),
  ];
  if (name === "qkv") dispatches.push(...await attend(context, layer, window));
  const { outputBias } = layer.vectors;
  if (name === "o" && outputBias) dispatches.push(await addBias(gpu, range, config.hidden, outputBias, hidden));
  if (name === "gate+up") dispatches.push(await siluProduct(gpu, range, config.intermediate, gateUp, kept));
  return dispatches;
}

/** Attention of each window by itself. */
async function attend(
  { gpu, config, qkv, rotations, cache }: StreamContext,
  { vectors }: DeviceLayer,
  { count, windowRange, kept }: StreamWindows,
): Promise<Dispatch[]> {
  const { heads, keyValueHeads, headSize } = config;
  const shape = attentionShape(config);
  const tokensOf = (buffer: GPUBuffer, width: number, window: number) => {
    const size = 4 * windowRange.maxTokens * width;
    return { buffer, offset: window * size, size };
  };
  const sequenceOf = (plane: Plane, window: number): Plane => {
    const size = 2 * keyValueHeads * headSize * cache.capacity;
    return { ...plane, offset: window * size, size };
  };
  const dispatches: Dispatch[] = [];
  for (let window = 0; window < count; window++) {
    const own = {
      qkv: tokensOf(qkv, (heads + 2 * keyValueHeads) * headSize, window),
      cache: { ...cache, keys: sequenceOf(cache.keys, window), values: sequenceOf(cache.values, window) },
    };
    dispatches.push(
      await ropeCache(gpu, shape, windowRange, { ...own, rotations, ...attentionExtras(config, vectors) }),
      await prefillAttention(gpu, shape, windowRange, { ...own, out: tokensOf(kept, heads * headSize, window) }),
    );
  }
  return dispatches;
}

/** Products of a stage's matrices with their input, into one output or added to the residual stream. */
async function products(
  gpu: Gpu,
  { matrices }: DeviceLayer,
  window: StreamWindows,
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
