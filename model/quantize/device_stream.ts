// Calibration windows on their way through one model on the device (calibration.ts is the same on the CPU).
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { whole } from "../../kernels/gpu/plane.ts";
import type { F16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import { placeParts } from "../../kernels/matrix/slabs.ts";
import { createHalves, gemm, type MultiplyRange } from "../../kernels/product/linear.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { turnedTokens } from "../../kernels/quantize/token_sums.ts";
import { embedTokens as embedOnDevice } from "../../kernels/tokens/embed_tokens.ts";
import { createTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import type { EngineLayer, LayerVectors } from "../engine/engine_weights.ts";
import { JOINED_BYTES, joinedAttention, type JoinedAttentionBuffers, mostJoined } from "../engine/joined_attention.ts";
import { inputDispatches, passOperations, stageInput } from "../engine/layer_operations.ts";
import { release } from "../host/release.ts";
import type { ModelConfig } from "../llama/config.ts";
import { embedTokens } from "../llama/forward.ts";
import { type LinearKind, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { rotationTable } from "../llama/rope.ts";

/** A layer on the device; matrices come as their stages are done. */
export interface DeviceLayer {
  readonly vectors: LayerVectors;
  /** Matrices of the stages so far. */
  readonly matrices: Map<LinearKind, WeightMatrix>;
}

/** Windows of equal length of the calibration text, side by side in one model. */
export interface StreamWindows {
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

export interface StreamContext extends Omit<JoinedAttentionBuffers, "mixed"> {
  readonly gpu: Gpu;
  readonly config: ModelConfig;
  /** f32 [tokens, (heads + 2 keyValueHeads) * headSize], or what else is [tokens, hidden] meanwhile, also turned. */
  readonly qkv: GPUBuffer;
  /** f32 [tokens, 2 * intermediate], or what else is [tokens, width of an input] meanwhile, also turned. */
  readonly gateUp: GPUBuffer;
  /** f16 [tokens, width of an input], also turned, where matrix units multiply. */
  readonly halves: GPUBuffer | undefined;
}

/** Windows side by side that are submitted before the host waits for those before, so that work doesn't pile up. */
export const WINDOWS_AHEAD = 4;

/** Windows of equal length begin where bindings may if they have a multiple of so many tokens. */
const ALIGNED_TOKENS = 64;

/** Shares windows out in order: neighbours of equal length go side by side, as many as make large products. */
export function joinWindows(config: ModelConfig, windows: readonly Uint32Array[]): Uint32Array[][] {
  const most = mostJoined(config);
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

/** Bytes that text takes on its way through one model, and what it goes through the layers with. */
export function streamBytes(config: ModelConfig, tokens: number): number {
  return 4 * tokens * (config.hidden + keptWidth(config)) + 3 * JOINED_BYTES;
}

/** Elements of a token in {@linkcode StreamWindows.kept}. */
function keptWidth({ heads, headSize, intermediate }: ModelConfig): number {
  return Math.max(heads * headSize, intermediate);
}

/**
 * Puts windows before the first layer of a model.
 *
 * @param embedding f32 [vocabulary, hidden] of the host, or that of the device
 * @param keepsInputs whether all windows keep their input of a stage, rather than share a buffer for it
 */
export async function createWindows(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  embedding: Float32Array | F16Matrix,
  joined: readonly (readonly Uint32Array[])[],
  keepsInputs = true,
): Promise<StreamWindows[]> {
  const ranges = new Map<string, TokenRange>();
  const rangeOf = async (count: number, length: number) => {
    const key = `${count} x ${length}`;
    const range = ranges.get(key) ?? await createTokenRange(gpu, count * length, count);
    if (!ranges.has(key)) scope.own(range.buffer);
    ranges.set(key, range);
    return range;
  };
  const most = mostTokens(joined);
  const normed = await scope.storage("normed", 4 * most * config.hidden);
  const keep = (tokens: number) => scope.storage("kept input", 4 * tokens * keptWidth(config));
  const shared = keepsInputs ? undefined : await keep(most);
  const made: StreamWindows[] = [];
  for (const windows of joined) {
    const tokens = windows.length * windows[0].length;
    const range = await rangeOf(windows.length, windows[0].length);
    made.push({
      count: windows.length,
      windowRange: await rangeOf(1, windows[0].length),
      range,
      hidden: await embedWindows(gpu, scope, config, embedding, windows, range),
      kept: shared ?? await keep(tokens),
      normed,
    });
  }
  return made;
}

/** Puts windows before the first layer of another model, whose embedding is the same. */
export async function copyWindows(
  gpu: Gpu,
  scope: BufferScope,
  windows: readonly StreamWindows[],
): Promise<StreamWindows[]> {
  const normed = await scope.storage("normed", windows[0].normed.size);
  const copied: StreamWindows[] = [];
  for (const { hidden, kept, ...ranges } of windows) {
    copied.push({
      ...ranges,
      hidden: scope.own(await gpu.duplicate(hidden)),
      kept: await scope.storage(kept.label, kept.size),
      normed,
    });
  }
  return copied;
}

/** Input of the first layer, f32 [tokens, hidden]. */
async function embedWindows(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  embedding: Float32Array | F16Matrix,
  windows: readonly Uint32Array[],
  range: TokenRange,
): Promise<GPUBuffer> {
  if (embedding instanceof Float32Array) {
    const embedded = embedTokens(config, embedding, windows.map((tokens) => ({ tokens }))) as Float32Array<ArrayBuffer>;
    const hidden = await scope.upload("hidden", embedded);
    release(embedded);
    return hidden;
  }
  const hidden = await scope.storage("hidden", 4 * range.maxTokens * config.hidden);
  using own = createBufferScope(gpu);
  const tokens = await own.upload("tokens", Uint32Array.from(windows.flatMap((window) => [...window])));
  gpu.submit(await embedOnDevice(gpu, embedding, range, tokens, hidden));
  return hidden;
}

function mostTokens(joined: readonly (readonly Uint32Array[])[]): number {
  return Math.max(...joined.map((windows) => windows.length * windows[0].length));
}

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
  const turned = turnedTokens(tokens);
  const make = (label: string, width: number) => scope.storage(label, Math.max(4 * tokens, 2 * turned) * width);
  return {
    gpu,
    config,
    qkv: await make("qkv", Math.max(hidden, (heads + 2 * keyValueHeads) * headSize)),
    gateUp: await make("gate and up", Math.max(hidden, heads * headSize, 2 * intermediate)),
    halves: await createHalves(gpu, scope, Math.max(hidden, keptWidth(config)), turned),
    rotations: await scope.upload("rotations", rotationTable(rope, headSize, capacity, longest)),
    cache: {
      capacity,
      keys: whole(await scope.storage("keys", cacheBytes)),
      values: whole(await scope.storage("values", cacheBytes)),
    },
  };
}

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

/** A layer with the matrices that it has so far, as passes take them. */
export function placeStages({ vectors, matrices }: DeviceLayer): EngineLayer {
  const partsOf = (kinds: readonly LinearKind[]) => placeParts(kinds.flatMap((kind) => matrices.get(kind) ?? []));
  const [qkv, o, gateUp, down] = STAGES.map(({ linears }) => partsOf(linears));
  return { ...vectors, linears: { qkv, o, "gate+up": gateUp, down } };
}

/** The buffers of a pass: what is kept of a stage is attention's output, then the input of down. */
function passBuffers({ qkv, gateUp }: StreamContext, { hidden, normed, kept }: StreamWindows) {
  return { qkv, gateUp, hidden, normed, mixed: kept, inner: kept };
}

/** Where the input of a stage's matrices lies once {@linkcode stageInputDispatches} has run. */
export function stageInputOf(context: StreamContext, windows: StreamWindows, stage: number): GPUBuffer {
  return stageInput(passBuffers(context, windows), STAGES[stage]);
}

/** Dispatches that make the input of a stage's matrices of windows that have come there; inputs of o and down are kept. */
export function stageInputDispatches(
  context: StreamContext,
  layer: EngineLayer,
  windows: StreamWindows,
  stage: number,
): Promise<Dispatch[]> {
  const { gpu, config } = context;
  return inputDispatches(gpu, config, layer, windows.range, passBuffers(context, windows), STAGES[stage]);
}

/** Dispatches that take windows through a stage's matrices, to which they have come, or through all of a layer's. */
export async function passDispatches(
  context: StreamContext,
  layer: EngineLayer,
  windows: StreamWindows,
  stage?: number,
): Promise<Dispatch[]> {
  const { gpu, config, halves } = context;
  const buffers = passBuffers(context, windows);
  const multiply: MultiplyRange = (gpu, matrix, product) => gemm(gpu, matrix, { ...product, halves });
  const stages = stage === undefined ? STAGES : [STAGES[stage]];
  const attends = stages[0].name === "qkv";
  const { range } = windows;
  const mixing = attends
    ? await joinedAttention(gpu, config, layer, range, { ...context, ...buffers })
    : { dispatches: [] };
  const operations = await passOperations(gpu, config, layer, range, buffers, mixing, multiply, stages);
  return operations.flatMap(({ dispatches }) => dispatches);
}
