/**
 * The dispatches of one decode step: one token through all layers to the choice of the next.
 *
 * @module
 */
import { addBias } from "../../kernels/tokens/add_bias.ts";
import {
  chooseSplits,
  decodeAttention,
  type DecodeAttentionBuffers,
} from "../../kernels/attention/decode_attention.ts";
import { decodeLayers } from "../../kernels/layer/decode_layer.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import type { GemvOutput, ValuesInput } from "../../kernels/product/gemv_modes.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { AttentionShape, KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import type { DecodeLayer, LayerMatrices } from "../../kernels/layer/layer_run.ts";
import { gemv } from "../../kernels/product/linear.ts";
import { advance, argmax, CANDIDATES, sample } from "../../kernels/tokens/pick_token.ts";
import type { PrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { siluProduct } from "../../kernels/tokens/silu_product.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { EngineLayer, EngineWeights, JoinedLinear, LayerVectors } from "./engine_weights.ts";

/** What a dispatch of a decode step is for; "layers" are whole layers at once. */
export type OperationKind = "layers" | "qkv" | "attention" | "o" | "gate+up" | "down" | "head" | "pick";

/** Dispatches with one purpose. */
export interface Operation {
  /** Their purpose. */
  readonly kind: OperationKind;
  /** In order. */
  readonly dispatches: readonly Dispatch[];
}

/** A decode step, up to the logits and from them. */
export interface DecodeStep {
  /** The layers, one after the other, for a token at this position. */
  layers(position: number): readonly Operation[];
  /** The same layers as single operations, to be timed. Where layers run whole, nothing else runs these. */
  operations(position: number): Promise<readonly Operation[]>;
  /** Embeds {@linkcode DecodeBuffers.next}. */
  readonly embed: readonly Dispatch[];
  /** Final norm and head. */
  readonly head: Operation;
  /** Where it is not 0, a workgroup waited for another in vain; in layers that hand over values. */
  readonly relay?: GPUBuffer;
  /** Frees the buffers made for the step. */
  destroy(): void;
  /** Takes the most likely token. */
  readonly pickBest: Operation;
  /** Draws a token. */
  readonly pickSampled: Operation;
}

/** Buffers that a decode step works in. */
export interface DecodeBuffers {
  /** f32 [hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [hidden]: input of the first layer, where layers don't work in place. */
  readonly embedded: GPUBuffer;
  /** f32 [(heads + 2 keyValueHeads) * headSize]. */
  readonly qkv: GPUBuffer;
  /** f32: attention's partial results. */
  readonly partials: GPUBuffer;
  /** f32 [2 * intermediate]: gate and up, where they are not multiplied at once. */
  readonly gateUp: GPUBuffer;
  /** f32 [intermediate]: silu(gate) * up. */
  readonly inner: GPUBuffer;
  /** f16: input of f16 products. */
  readonly scratch: GPUBuffer;
  /** f32 [vocabulary]. */
  readonly logits: GPUBuffer;
  /** u32 [CANDIDATES, 2]. */
  readonly candidates: GPUBuffer;
  /** Settings of sampling. */
  readonly settings: GPUBuffer;
  /** u32 [2]: position of the token that the step takes, and 0, the index of its sequence. */
  readonly sequence: GPUBuffer;
  /** u32 [capacity + 1]: token of each position. */
  readonly tokens: GPUBuffer;
  /** u32: a token to embed. */
  readonly next: GPUBuffer;
  /** f32 [capacity, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
  /** Keys and values of each layer. */
  readonly caches: readonly KeyValueCache[];
  /** A range of one token. */
  readonly oneToken: PrefillRange;
}

/** Heads of a model's attention. */
export function attentionShape({ heads, keyValueHeads, headSize, slidingWindow }: ModelConfig): AttentionShape {
  return { heads, keyValueHeads, headSize, ...(slidingWindow !== undefined && { slidingWindow }) };
}

/** What a layer's attention takes beside its products. */
export function attentionExtras(
  { normEpsilon }: ModelConfig,
  { qkvBias, headNorm }: LayerVectors,
): Pick<DecodeAttentionBuffers, "bias" | "headNorm"> {
  return {
    ...(qkvBias && { bias: qkvBias }),
    ...(headNorm && { headNorm: { weights: headNorm, epsilon: normEpsilon } }),
  };
}

/** The layers of a decode step. */
interface StepLayers extends Pick<DecodeStep, "layers" | "operations" | "relay" | "destroy"> {
  /** Where they take the embedding from; they leave their result in {@linkcode DecodeBuffers.hidden}. */
  readonly input: GPUBuffer;
}

/** Makes the dispatches of a decode step; they serve every position. */
export async function createDecodeStep(gpu: Gpu, weights: EngineWeights, buffers: DecodeBuffers): Promise<DecodeStep> {
  const layers = await createWholeLayers(gpu, weights, buffers) ?? await createSplitLayers(gpu, weights, buffers);
  try {
    return await surroundLayers(gpu, weights, buffers, layers);
  } catch (error) {
    layers.destroy();
    throw error;
  }
}

/** What comes before the layers of a step and after them. */
async function surroundLayers(
  gpu: Gpu,
  { config, finalNorm, head, embedding }: EngineWeights,
  buffers: DecodeBuffers,
  { input, ...layers }: StepLayers,
): Promise<DecodeStep> {
  const { hidden, logits, candidates, scratch } = buffers;
  const final: ValuesInput = { kind: "rms_norm", x: hidden, weight: finalNorm, epsilon: config.normEpsilon };
  const advanced = { ...buffers, hidden: input, embedding };
  const best = [
    await argmax(gpu, config.vocabulary, logits, candidates),
    ...await advance(gpu, CANDIDATES, advanced),
  ];
  const sampled = [await sample(gpu, config.vocabulary, buffers), ...await advance(gpu, 1, advanced)];
  return {
    ...layers,
    embed: await embedTokens(gpu, embedding, buffers.oneToken, buffers.next, input),
    head: { kind: "head", dispatches: await gemv(gpu, head, final, store({ buffer: logits }), scratch) },
    pickBest: { kind: "pick", dispatches: best },
    pickSampled: { kind: "pick", dispatches: sampled },
  };
}

/** Layers run by run, where all are packed alike and the device suits. */
async function createWholeLayers(
  gpu: Gpu,
  { config, layers }: EngineWeights,
  buffers: DecodeBuffers,
): Promise<StepLayers | undefined> {
  const { hidden: output, embedded: input, caches } = buffers;
  const { hidden, intermediate, normEpsilon } = config;
  const shape = { hidden, intermediate, normEpsilon, attention: attentionShape(config) };
  const decoded: DecodeLayer[] = [];
  for (const [i, layer] of layers.entries()) {
    const matrices = packedMatrices(layer);
    if (!matrices || layer.outputBias) return undefined;
    const { attentionNorm, mlpNorm } = layer;
    decoded.push({ ...attentionExtras(config, layer), matrices, cache: caches[i], attentionNorm, mlpNorm });
  }
  const whole = await decodeLayers(gpu, shape, decoded, { ...buffers, input, output });
  if (!whole) return undefined;
  const all = [{ kind: "layers" as const, dispatches: whole.dispatches }];
  const operations = async (position: number) =>
    (await createSplitLayers(gpu, { config, layers }, buffers)).layers(position);
  return { layers: () => all, operations, relay: whole.relay, destroy: whole.destroy, input };
}

function packedMatrices({ qkv: [qkv, ...more], o: [o], gateUp: [gateUp, ...evenMore], down: [down] }: EngineLayer) {
  const matrices = { qkv, o, gateUp, down };
  const arePacked = [qkv, o, gateUp, down].every(({ kind }) => kind === "packed") &&
    more.length + evenMore.length === 0;
  return arePacked ? matrices as LayerMatrices : undefined;
}

/** A dispatch for each operation. */
async function createSplitLayers(
  gpu: Gpu,
  weights: Pick<EngineWeights, "config" | "layers">,
  buffers: DecodeBuffers,
): Promise<StepLayers> {
  const { capacity } = buffers.caches[0];
  const shape = attentionShape(weights.config);
  const bySplits = new Map<number, Operation[]>();
  for (let tokens = 1; tokens < 2 * capacity; tokens *= 2) {
    const splits = chooseSplits(gpu.profile, shape, Math.min(tokens, capacity));
    if (!bySplits.has(splits)) bySplits.set(splits, await createLayers(gpu, weights, splits, buffers));
  }
  const layers = (position: number) => bySplits.get(chooseSplits(gpu.profile, shape, position + 1))!;
  return {
    layers,
    operations: (position) => Promise.resolve(layers(position)),
    input: buffers.hidden,
    destroy() {},
  };
}

async function createLayers(
  gpu: Gpu,
  { config, layers }: Pick<EngineWeights, "config" | "layers">,
  splits: number,
  buffers: DecodeBuffers,
): Promise<Operation[]> {
  const operations: Operation[] = [];
  for (const [i, layer] of layers.entries()) {
    operations.push(...await layerOperations(gpu, config, layer, buffers.caches[i], splits, buffers));
  }
  return operations;
}

async function layerOperations(
  gpu: Gpu,
  config: ModelConfig,
  layer: EngineLayer,
  cache: KeyValueCache,
  splits: number,
  buffers: DecodeBuffers,
): Promise<Operation[]> {
  const { hidden, qkv, partials, inner } = buffers;
  const { normEpsilon: epsilon, headSize } = config;
  const normed = (weight: GPUBuffer): ValuesInput => ({ kind: "rms_norm", x: hidden, weight, epsilon });
  const product = (linear: JoinedLinear, input: ValuesInput, output: GemvOutput) =>
    joinedGemv(gpu, linear, input, output, buffers.scratch);
  const attention = { ...buffers, cache, ...attentionExtras(config, layer) };
  const mixed: ValuesInput = splits === 1
    ? { kind: "vector", x: partials }
    : { kind: "attention", partials, splits, headSize };
  const toHidden: GemvOutput = { kind: "add", y: { buffer: hidden } };
  const bias = layer.outputBias ? [await addBias(gpu, buffers.oneToken, config.hidden, layer.outputBias, hidden)] : [];
  return [
    { kind: "qkv", dispatches: await product(layer.qkv, normed(layer.attentionNorm), store({ buffer: qkv })) },
    { kind: "attention", dispatches: [await decodeAttention(gpu, attentionShape(config), splits, attention)] },
    { kind: "o", dispatches: [...await product(layer.o, mixed, toHidden), ...bias] },
    { kind: "gate+up", dispatches: await gateUpDispatches(gpu, config, layer, normed(layer.mlpNorm), buffers) },
    { kind: "down", dispatches: await product(layer.down, { kind: "vector", x: inner }, toHidden) },
  ];
}

/** silu(gate) * up: in one dispatch where gate and up are one matrix, else through {@linkcode DecodeBuffers.gateUp}. */
async function gateUpDispatches(
  gpu: Gpu,
  config: ModelConfig,
  { gateUp }: EngineLayer,
  input: ValuesInput,
  buffers: DecodeBuffers,
): Promise<Dispatch[]> {
  const [first] = gateUp;
  if (gateUp.length === 1 && first.slabs.length === 1 && first.rows % 8 === 0) {
    const output: GemvOutput = { kind: "silu_product", y: { buffer: buffers.inner } };
    return await gemv(gpu, first, input, output, buffers.scratch);
  }
  return [
    ...await joinedGemv(gpu, gateUp, input, store({ buffer: buffers.gateUp }), buffers.scratch),
    await siluProduct(gpu, buffers.oneToken, config.intermediate, buffers.gateUp, buffers.inner),
  ];
}

async function joinedGemv(
  gpu: Gpu,
  parts: JoinedLinear,
  input: ValuesInput,
  output: GemvOutput,
  scratch: GPUBuffer,
): Promise<Dispatch[]> {
  const dispatches: Dispatch[] = [];
  for (const matrix of parts) dispatches.push(...await gemv(gpu, matrix, input, output, scratch));
  return dispatches;
}

function store(y: GPUBufferBinding): GemvOutput {
  return { kind: "store", y };
}
