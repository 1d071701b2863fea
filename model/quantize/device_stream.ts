/**
 * Calibration windows on their way through one model on the device (calibration.ts is the same on the CPU).
 *
 * @module
 */
import { addBias } from "../../kernels/tokens/add_bias.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { gemm, type WeightMatrix } from "../../kernels/product/linear.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { createPrefillRange, type PrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { whole } from "../../kernels/gpu/plane.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { ModelConfig } from "../llama/config.ts";
import { attentionExtras, attentionShape } from "../engine/decode_step.ts";
import { type LayerVectors, placeRows } from "../engine/engine_weights.ts";
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

/** What all streams have in common. */
export interface StreamContext {
  /** The device. */
  readonly gpu: Gpu;
  /** The model. */
  readonly config: ModelConfig;
  /** Buffers for the window that is being worked on. */
  readonly scratch: StreamScratch;
}

/** A window of a stream in a layer. */
export interface Passage {
  /** The layer. */
  readonly layer: DeviceLayer;
  /** The stream. */
  readonly stream: DeviceStream;
  /** One of its windows. */
  readonly window: StreamWindow;
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
  { embedding, windows }: Calibration,
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
export function stageInputOf({ stream, window }: Passage, stage: number): GPUBuffer {
  return STAGES[stage].joinsResidual ? window.kept : stream.normed;
}

/** Dispatches that make the input of a stage's matrices of a window that has come there; inputs of o and down are kept. */
export async function inputDispatches(
  { gpu, config }: StreamContext,
  { layer: { vectors }, stream: { normed }, window: { range, hidden } }: Passage,
  stage: number,
): Promise<Dispatch[]> {
  const { input } = STAGES[stage];
  if (input !== "attentionNorm" && input !== "mlpNorm") return [];
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x: hidden, weight: vectors[input], y: normed };
  return [await rmsNorm(gpu, range, norm)];
}

/** Dispatches that take a window that has come to a stage through its matrices. The stages of a layer come in order. */
export async function passDispatches(context: StreamContext, passage: Passage, stage: number): Promise<Dispatch[]> {
  const { gpu, config, scratch: { qkv, gateUp, rotations, cache } } = context;
  const { layer: { vectors }, stream: { normed }, window: { range, hidden, kept } } = passage;
  switch (STAGES[stage].name) {
    case "qkv": {
      const shape = attentionShape(config);
      const rope = { qkv, rotations, cache, ...attentionExtras(config, vectors) };
      return [
        ...await inputDispatches(context, passage, stage),
        ...await products(gpu, passage, stage, normed, qkv),
        await ropeCache(gpu, shape, range, rope),
        await prefillAttention(gpu, shape, range, qkv, cache, kept),
      ];
    }
    case "gate+up":
      return [
        ...await inputDispatches(context, passage, stage),
        ...await products(gpu, passage, stage, normed, gateUp),
        await siluProduct(gpu, range, config.intermediate, gateUp, kept),
      ];
    case "o": {
      const { outputBias } = vectors;
      return [
        ...await products(gpu, passage, stage, kept, hidden),
        ...(outputBias ? [await addBias(gpu, range, config.hidden, outputBias, hidden)] : []),
      ];
    }
    case "down":
      return await products(gpu, passage, stage, kept, hidden);
  }
}

/** Products of a stage's matrices with their input, into one output or added to the residual stream. */
async function products(
  gpu: Gpu,
  { layer: { matrices }, window: { range } }: Passage,
  stage: number,
  x: GPUBuffer,
  y: GPUBuffer,
): Promise<Dispatch[]> {
  const { linears, joinsResidual } = STAGES[stage];
  const parts = linears.map((kind) => matrices.get(kind)!);
  const rows = parts.reduce((sum, matrix) => sum + matrix.rows, 0);
  const dispatches: Dispatch[] = [];
  let firstRow = 0;
  for (const matrix of parts) {
    const placed = placeRows(matrix, firstRow, rows);
    dispatches.push(...await gemm(gpu, placed, range, x, y, { addToY: joinsResidual }));
    firstRow += matrix.rows;
  }
  return dispatches;
}
