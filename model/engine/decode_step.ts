// The dispatches of a decode step: one token of each of some sequences, through all layers to the choice of the next.
import { chooseSplits, decodeAttention, partialsLength } from "../../kernels/attention/decode_attention.ts";
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { decodeLayers, type LayerDispatches } from "../../kernels/layer/decode_layer.ts";
import { reduceSplits } from "../../kernels/product/split_reduce.ts";
import { createMultiplyFew, createMultiplyFused, gemv, type MultiplyFused } from "../../kernels/product/linear.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import { advance, argmax, CANDIDATES, sample, SAMPLING_BYTES, selectionBytes } from "../../kernels/tokens/sampler.ts";
import { createTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import type { ModelConfig } from "../llama/config.ts";
import { STAGES } from "../llama/layer.ts";
import type { EngineLayer, EngineWeights } from "./engine_weights.ts";
import {
  attentionExtras,
  attentionShape,
  createStageBuffers,
  linearsOf,
  linksOf,
  logitDispatches,
  type Operation,
  passOperations,
  type StageBuffers,
  type TokenBuffers,
  tokenOperations,
} from "./layer_operations.ts";
import type { DecodePrecision } from "./precision.ts";
import { rotationTable } from "../llama/rope.ts";
import { createCaches, roundCapacity } from "./sequence_cache.ts";

/** Tokens that steps are made for: kernels differ in how many tokens they are fast for. */
const STEP_SIZES = [1, 2, 4, 8, 16, 32, 64, 128] as const;

/** Most sequences that go on together: tokens of the wide tile of the matrix-matrix kernels. */
export const MAX_SEQUENCES = 128;

/** Size of the smallest step for so many tokens, 1 to {@linkcode MAX_SEQUENCES}. */
export function stepSize(tokens: number): number {
  return STEP_SIZES.find((size) => size >= tokens) ?? MAX_SEQUENCES;
}

/** Buffers that all steps of some sequences work in; T is the most tokens of a step, C the capacity of a sequence. */
export interface StepBuffers extends StageBuffers {
  /** Not a buffer, but what steps in them have in common too. */
  readonly precision: DecodePrecision;
  /** f32 [T, vocabulary]. */
  readonly logits: GPUBuffer;
  /** u32 [T, CANDIDATES, 2]. */
  readonly candidates: GPUBuffer;
  readonly settings: GPUBuffer;
  /** What sampling works in, of each token. */
  readonly selection: GPUBuffer;
  /** u32 [T, 2]: position of each token, and the index of its sequence. */
  readonly sequence: GPUBuffer;
  /** u32 [sequences, C + 1]: of each sequence, the token chosen for each position. */
  readonly chosen: GPUBuffer;
  readonly sequences: number;
  /** f32 [C, headSize / 2, 2]: cosine and sine of each position's angles. */
  readonly rotations: GPUBuffer;
  readonly caches: readonly KeyValueCache[];
}

/**
 * Makes the buffers.
 *
 * @param tokens that each sequence has room for
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createStepBuffers(
  gpu: Gpu,
  config: ModelConfig,
  sequences: number,
  tokens: number,
  scope: BufferScope,
  precision: DecodePrecision = {},
): Promise<StepBuffers> {
  const { headSize, vocabulary, rope } = config;
  const capacity = roundCapacity(tokens);
  const most = stepSize(sequences);
  const words = (label: string, width: number) => scope.storage(label, 4 * most * width);
  return {
    precision,
    ...await createStageBuffers(scope, config, most),
    logits: await words("logits", vocabulary),
    candidates: await words("candidates", 2 * CANDIDATES),
    settings: await words("sampling", SAMPLING_BYTES / 4),
    selection: await words("selection", selectionBytes(gpu) / 4),
    sequence: await words("sequence", 2),
    chosen: await scope.storage("chosen tokens", 4 * sequences * (capacity + 1)),
    sequences,
    rotations: await scope.upload("rotations", rotationTable(rope, headSize, capacity, tokens)),
    caches: await createCaches(gpu, scope, config, capacity, sequences, precision.cacheBits),
  };
}

/** A decode step, up to the logits and from them. Disposing it frees the buffers made for it. */
export interface DecodeStep extends Disposable {
  /** Number of tokens: one of each sequence that takes part. */
  readonly range: TokenRange;
  /** Embeds {@linkcode StepBuffers.tokens}. */
  readonly embed: readonly Dispatch[];
  /** The layers, one after the other, for tokens at this position or, where there are several, at any. */
  layers(position: number): readonly Operation[];
  /** The same layers as single operations, to be timed. Where layers run whole, nothing else runs these. */
  operations(position: number): Promise<readonly Operation[]>;
  /** Where it is not 0, a workgroup waited for another in vain; in layers that hand over values. */
  readonly relay?: GPUBuffer;
  /** Why layers don't run whole, where they don't. */
  readonly whyNotWhole?: string;
  readonly head: Operation;
  readonly pickBest: Operation;
  readonly pickSampled: Operation;
}

/** What is between the embedding of tokens and the choice of the next. */
interface StepMiddle extends Pick<DecodeStep, "layers" | "operations" | "relay" | "whyNotWhole" | "head"> {
  /** f32 [T, hidden]: where layers take embeddings from; they leave their result in {@linkcode StepBuffers.hidden}. */
  readonly input: GPUBuffer;
}

/** Makes the dispatches of a step of up to `size` tokens; they serve every position and, by {@linkcode forTokens}, fewer. */
export function createDecodeStep(
  gpu: Gpu,
  weights: EngineWeights,
  size: number,
  buffers: StepBuffers,
): Promise<DecodeStep> {
  return allOrNone(gpu, async (scope) => {
    const range = await createTokenRange(gpu, size);
    scope.own(range.buffer);
    const createMiddle = size === 1 ? createTokenMiddle : createBatchMiddle;
    const { input, ...middle } = await createMiddle(gpu, weights, range, buffers, scope);
    const { embedding, config: { vocabulary } } = weights;
    const { logits, candidates, sequences, chosen: tokens } = buffers;
    const stride = sequences > 1 ? buffers.caches[0].capacity + 1 : 0;
    const advanced = { ...buffers, hidden: input, embedding, tokens, stride };
    const next = await advance(gpu, advanced, size);
    const best = [await argmax(gpu, vocabulary, logits, candidates, size), ...next];
    const sampled = [...await sample(gpu, vocabulary, buffers, size), ...next];
    return {
      ...middle,
      range,
      embed: await embedTokens(gpu, embedding, range, buffers.tokens, input),
      pickBest: { kind: "pick", dispatches: best },
      pickSampled: { kind: "pick", dispatches: sampled },
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}

/**
 * Dispatches for the first tokens of a step only. Kernels with a range skip the others themselves; those without have a
 * workgroup.z for each token, or for each few, and a workgroup.z means nothing else in a step.
 */
export function forTokens(dispatches: readonly Dispatch[], tokens: number): Dispatch[] {
  return dispatches.map((dispatch) => {
    const [x, y, z] = dispatch.workgroups;
    return z <= tokens ? dispatch : { ...dispatch, workgroups: [x, y, tokens] };
  });
}

/** The middle of a step of several tokens. Its splits serve sequences of all lengths, since those of one step differ. */
async function createBatchMiddle(
  gpu: Gpu,
  weights: EngineWeights,
  range: TokenRange,
  buffers: StepBuffers,
  scope: BufferScope,
): Promise<StepMiddle> {
  const { config, layers, head } = weights;
  const { heads, headSize, hidden } = config;
  const size = range.maxTokens;
  const shape = attentionShape(config);
  const splits = chooseSplits(gpu.profile, shape, buffers.caches[0].capacity, size);
  const linears = linearsOf(layers);
  const fused = await createMultiplyFused(gpu, scope, linears, range, buffers.precision.activationBits);
  const normed = await scope.storage("normed", 4 * size * hidden);
  const partials = await scope.storage("partials", 4 * size * partialsLength(shape, splits));
  // One split leaves the attention itself.
  const mixed = splits === 1 || fused ? partials : await scope.storage("mixed", 4 * size * heads * headSize);
  const joined = { kind: "attention", partials, splits, headSize } as const;
  const multiply = await createMultiplyFew(gpu, scope, fused ? [head] : [...linears, head], size);
  const layerOperations = async (layer: EngineLayer, i: number) => {
    const cache = buffers.caches[i];
    if (fused) return await tokenOperations(gpu, config, layer, range, cache, splits, { ...buffers, partials }, fused);
    const attention = { ...buffers, partials, cache, ...attentionExtras(config, layer) };
    const attend = [await decodeAttention(gpu, shape, splits, attention, size)];
    if (splits > 1) attend.push(await reduceSplits(gpu, range, heads * headSize, joined, mixed));
    const links = linksOf(layers, i, multiply);
    return await passOperations(
      gpu,
      config,
      layer,
      range,
      { ...buffers, normed, mixed },
      { dispatches: attend },
      multiply,
      STAGES,
      links,
    );
  };
  const operations: Operation[] = [];
  for (const [i, layer] of layers.entries()) operations.push(...await layerOperations(layer, i));
  return {
    input: buffers.hidden,
    layers: () => operations,
    operations: () => Promise.resolve(operations),
    whyNotWhole: `a step of ${size} tokens has no kernel for whole layers, must have 1`,
    head: {
      kind: "head",
      dispatches: await logitDispatches(gpu, weights, range, { ...buffers, normed, x: buffers.hidden }, multiply),
    },
  };
}

/** The middle of a step of one token: whole layers where all are of one format and the device suits. */
async function createTokenMiddle(
  gpu: Gpu,
  weights: EngineWeights,
  oneToken: TokenRange,
  { hidden, logits, precision, ...buffers }: StepBuffers,
  scope: BufferScope,
): Promise<StepMiddle> {
  const { config, finalNorm: weight } = weights;
  const { heads, headSize, intermediate, normEpsilon: epsilon } = config;
  const shape = attentionShape(config);
  const splits = chooseSplits(gpu.profile, shape, buffers.caches[0].capacity);
  const widest = Math.max(config.hidden, heads * headSize, intermediate);
  const partials = await scope.storage("partials", 4 * partialsLength(shape, splits));
  const scratch = await scope.storage("scratch", 16 * Math.ceil(widest / 8));
  const embedded = await scope.storage("embedded", 4 * config.hidden);
  const final = { kind: "rms_norm", x: hidden, weight, epsilon } as const;
  const dispatches = await gemv(gpu, weights.head, final, { kind: "store", y: { buffer: logits } }, scratch);
  const head: Operation = { kind: "head", dispatches };
  const multiply: MultiplyFused = (matrix, input, output) =>
    gemv(gpu, matrix, input, output, scratch, precision.activationBits);
  const single = () => createSingleOperations(gpu, weights, oneToken, { hidden, partials, ...buffers }, multiply);
  const whole = await createWholeLayers(
    gpu,
    weights,
    { ...buffers, precision, input: embedded, output: hidden },
    scope,
  );
  if (typeof whole === "string") {
    const layers = await single();
    return { input: hidden, layers, operations: (at) => Promise.resolve(layers(at)), whyNotWhole: whole, head };
  }
  const layers: readonly Operation[] = [{ kind: "layers", dispatches: whole.dispatches }];
  return {
    input: embedded,
    layers: () => layers,
    operations: async (at) => (await single())(at),
    relay: whole.relay,
    head,
  };
}

/** Layers run by run; or why they don't run so. */
async function createWholeLayers(
  gpu: Gpu,
  { config, layers, arenas }: EngineWeights,
  { precision, ...buffers }: Pick<StepBuffers, "precision" | "rotations" | "sequence" | "caches"> & {
    input: GPUBuffer;
    output: GPUBuffer;
  },
  scope: BufferScope,
): Promise<LayerDispatches | string> {
  if (typeof arenas === "string") return arenas;
  if (layers.some(({ outputBias }) => outputBias)) return "o has a bias, must have none";
  const { hidden, intermediate, normEpsilon } = config;
  const shape = { ...precision, hidden, intermediate, normEpsilon, attention: attentionShape(config) };
  const decoded = layers.map((layer, i) => {
    const { attentionNorm, mlpNorm } = layer;
    return { ...attentionExtras(config, layer), cache: buffers.caches[i], attentionNorm, mlpNorm };
  });
  return await decodeLayers(gpu, scope, shape, arenas, decoded, buffers);
}

/** A dispatch for each operation, by the splits that a position takes. */
async function createSingleOperations(
  gpu: Gpu,
  { config, layers }: EngineWeights,
  oneToken: TokenRange,
  buffers: TokenBuffers & Pick<StepBuffers, "caches">,
  multiply: MultiplyFused,
): Promise<StepMiddle["layers"]> {
  const { caches } = buffers;
  const [{ capacity }] = caches;
  const splitsAt = (tokens: number) => chooseSplits(gpu.profile, attentionShape(config), tokens);
  const bySplits = new Map<number, Operation[]>();
  for (let tokens = 1; tokens < 2 * capacity; tokens *= 2) {
    const splits = splitsAt(Math.min(tokens, capacity));
    if (bySplits.has(splits)) continue;
    const operations: Operation[] = [];
    for (const [i, layer] of layers.entries()) {
      operations.push(...await tokenOperations(gpu, config, layer, oneToken, caches[i], splits, buffers, multiply));
    }
    bySplits.set(splits, operations);
  }
  return (position) => bySplits.get(splitsAt(position + 1))!;
}
