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
import { createPrefillRange, type PrefillRange } from "../../kernels/tokens/prefill_range.ts";
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

/** A layer on the device; matrices come as their stages are done. */
export interface DeviceLayer {
  /** Norms and biases. */
  readonly vectors: LayerVectors;
  /** Matrices of the stages so far. */
  readonly matrices: Map<LinearKind, WeightMatrix>;
}

/** One window of a stream. */
export interface StreamWindow {
  /** Its tokens. */
  readonly range: PrefillRange;
  /** f32 [tokens, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [tokens, width]: input of o or down, kept from their stage until they are quantized. */
  readonly kept: GPUBuffer;
}

/** All windows in one model. */
export interface DeviceStream {
  /** The windows. */
  readonly windows: readonly StreamWindow[];
  /** f32 [tokens, hidden]: normed input of one window, overwritten by the next. */
  readonly normed: GPUBuffer;
}

/** Buffers for one window that streams share. */
export interface StreamScratch {
  /** f32 [tokens, (heads + 2 keyValueHeads) * headSize], or whatever else is [tokens, hidden] meanwhile. */
  readonly qkv: GPUBuffer;
  /** f32 [tokens, 2 * intermediate], or whatever else is [tokens, width of an input] meanwhile. */
  readonly gateUp: GPUBuffer;
  /** f32 [positions, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
  /** Keys and values of a window. */
  readonly cache: KeyValueCache;
}

/** Puts windows at the start of a stream. */
export async function createDeviceStream(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  embedding: Float32Array,
  windows: readonly Uint32Array[],
): Promise<DeviceStream> {
  const keptWidth = Math.max(config.heads * config.headSize, config.intermediate);
  const ranges = new Map<number, PrefillRange>();
  const made: StreamWindow[] = [];
  for (const tokens of windows) {
    const range = ranges.get(tokens.length) ?? await createPrefillRange(gpu, tokens.length);
    if (!ranges.has(tokens.length)) scope.own(range.buffer);
    ranges.set(tokens.length, range);
    const hidden = embedTokens(config, embedding, [{ tokens }]) as Float32Array<ArrayBuffer>;
    made.push({
      range,
      hidden: await scope.upload("hidden", hidden),
      kept: await scope.storage("kept input", 4 * tokens.length * keptWidth),
    });
    release(hidden);
  }
  const longest = Math.max(...ranges.keys());
  return { windows: made, normed: await scope.storage("normed", 4 * longest * config.hidden) };
}

/** Makes the buffers that streams of these windows share. */
export async function createStreamScratch(
  scope: BufferScope,
  config: ModelConfig,
  windows: readonly Uint32Array[],
): Promise<StreamScratch> {
  const { hidden, heads, keyValueHeads, headSize, intermediate, rope } = config;
  const longest = Math.max(...windows.map(({ length }) => length));
  const capacity = Math.ceil(longest / 64) * 64;
  const cacheBytes = 2 * keyValueHeads * headSize * capacity;
  return {
    qkv: await scope.storage("qkv", 4 * longest * Math.max(hidden, (heads + 2 * keyValueHeads) * headSize)),
    gateUp: await scope.storage("gate and up", 4 * longest * Math.max(hidden, heads * headSize, 2 * intermediate)),
    rotations: await scope.upload("rotations", rotationTable(rope, headSize, capacity)),
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
export function stageInputOf(stream: DeviceStream, window: StreamWindow, stage: number): GPUBuffer {
  return STAGES[stage].joinsResidual ? window.kept : stream.normed;
}

/**
 * Dispatches that take a window through the matrices of the stage before `stage`, or with `stage` 4 through a layer's last
 * ones. The stages of a layer come in order.
 */
export async function advanceDispatches(
  gpu: Gpu,
  config: ModelConfig,
  layer: DeviceLayer,
  stream: DeviceStream,
  window: StreamWindow,
  scratch: StreamScratch,
  stage: number,
): Promise<Dispatch[]> {
  const { range, hidden, kept } = window;
  const { vectors } = layer;
  const toInput = () => inputDispatches(gpu, config, layer, stream, window, stage - 1);
  switch (stage) {
    case 1: {
      const { qkv, rotations, cache } = scratch;
      const shape = attentionShape(config);
      const rope = { qkv, rotations, cache, ...attentionExtras(config, vectors) };
      return [
        ...await toInput(),
        ...await products(gpu, layer, STAGES[0].linears, range, stream.normed, qkv),
        await ropeCache(gpu, shape, range, rope),
        await prefillAttention(gpu, shape, range, { qkv, cache, out: kept }),
      ];
    }
    case 2:
      return [
        ...await products(gpu, layer, STAGES[1].linears, range, kept, hidden, true),
        ...(vectors.outputBias ? [await addBias(gpu, range, config.hidden, vectors.outputBias, hidden)] : []),
      ];
    case 3:
      return [
        ...await toInput(),
        ...await products(gpu, layer, STAGES[2].linears, range, stream.normed, scratch.gateUp),
        await siluProduct(gpu, range, config.intermediate, scratch.gateUp, kept),
      ];
    default:
      return await products(gpu, layer, STAGES[3].linears, range, kept, hidden, true);
  }
}

/** Dispatches that make the input of a stage's matrices of a window that has come there; inputs of o and down are kept. */
export async function inputDispatches(
  gpu: Gpu,
  config: ModelConfig,
  { vectors }: DeviceLayer,
  { normed }: DeviceStream,
  { range, hidden }: StreamWindow,
  stage: number,
): Promise<Dispatch[]> {
  if (STAGES[stage].joinsResidual) return [];
  const weight = stage === 0 ? vectors.attentionNorm : vectors.mlpNorm;
  return [
    await rmsNorm(gpu, range, { hidden: config.hidden, epsilon: config.normEpsilon, x: hidden, weight, y: normed }),
  ];
}

/** Products of matrices with one input, into one output. */
async function products(
  gpu: Gpu,
  { matrices }: DeviceLayer,
  kinds: readonly LinearKind[],
  range: PrefillRange,
  x: GPUBuffer,
  y: GPUBuffer,
  addToY = false,
): Promise<Dispatch[]> {
  const parts = kinds.map((kind) => matrices.get(kind)!);
  const rows = parts.reduce((sum, matrix) => sum + matrix.rows, 0);
  const dispatches: Dispatch[] = [];
  let firstRow = 0;
  for (const matrix of parts) {
    dispatches.push(...await gemm(gpu, placeRows(matrix, firstRow, rows), { range, x, y, addToY }));
    firstRow += matrix.rows;
  }
  return dispatches;
}
