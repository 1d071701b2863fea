/**
 * The dispatches of a decode step of several sequences: one token of each through all layers to the choice of the next.
 *
 * @module
 */
import { joinSplits } from "../../kernels/product/join_splits.ts";
import { chooseSplits, decodeAttention, partialsLength } from "../../kernels/attention/decode_attention.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { multiplyFew } from "../../kernels/product/linear.ts";
import { advance, argmax, CANDIDATES, sample, SAMPLING_BYTES } from "../../kernels/tokens/pick_token.ts";
import type { PrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import type { BufferOwner } from "./buffer_owner.ts";
import type { ModelConfig } from "../llama/config.ts";
import { attentionExtras, attentionShape } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createPassBuffers, layerPass, type PassBuffers } from "./layer_pass.ts";
import type { SequenceBuffers } from "./prefill.ts";
import { rotationTable } from "../llama/rope.ts";
import { createCaches, roundCapacity } from "./sequence_cache.ts";

/** Tokens that steps are made for: kernels differ in how many tokens they are fast for. */
const STEP_SIZES = [1, 2, 4, 8, 16] as const;

/** Most sequences of a batch: tokens of the narrow tile of the matrix-matrix kernels. */
export const MAX_SEQUENCES = 16;

/** Size of the smallest step for so many tokens, 1 to {@linkcode MAX_SEQUENCES}. */
export function stepSize(tokens: number): number {
  return STEP_SIZES.find((size) => size >= tokens) ?? MAX_SEQUENCES;
}

/** Buffers that steps of up to T tokens, one a sequence, work in; C is the capacity of a sequence. */
export interface BatchBuffers extends PassBuffers, SequenceBuffers {
  /** f32 [T, partialsLength]: attention's partial results, of as many splits as steps of that size have. */
  readonly partials: GPUBuffer;
  /** f32 [T, vocabulary]. */
  readonly logits: GPUBuffer;
  /** u32 [T, CANDIDATES, 2]. */
  readonly candidates: GPUBuffer;
  /** Settings of sampling, of each token. */
  readonly settings: GPUBuffer;
  /** u32 [T, 2]: position of each token, and the index of its sequence. */
  readonly sequence: GPUBuffer;
  /** u32 [T, C + 1]: of each sequence, by its index, the token chosen for each position. */
  readonly chosen: GPUBuffer;
  /** u32 [T * C]: tokens gathered to be read. */
  readonly gathered: GPUBuffer;
}

/**
 * Makes the buffers.
 *
 * @param tokens that each sequence has room for
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createBatchBuffers(
  gpu: Gpu,
  config: ModelConfig,
  sequences: number,
  tokens: number,
  owner: BufferOwner,
): Promise<BatchBuffers> {
  const capacity = roundCapacity(tokens);
  const most = stepSize(sequences);
  const words = (label: string, width: number) => owner.make(label, most * width);
  const shape = attentionShape(config);
  const partials = STEP_SIZES.filter((size) => size <= most)
    .map((size) => size * partialsLength(shape, batchSplits(gpu, config, size, capacity)));
  return {
    ...await createPassBuffers(owner, config, most),
    caches: await createCaches(gpu, owner, config, capacity, sequences),
    rotations: owner.own(await gpu.uploadStorage("rotations", rotationTable(config.rope, config.headSize, capacity))),
    partials: await owner.make("partials", Math.max(...partials)),
    logits: await words("logits", config.vocabulary),
    candidates: await words("candidates", 2 * CANDIDATES),
    settings: await words("sampling", SAMPLING_BYTES / 4),
    sequence: await words("sequence", 2),
    chosen: await words("chosen tokens", capacity + 1),
    gathered: await words("gathered tokens", capacity),
  };
}

/** A decode step, up to the logits and from them, for a number of tokens and, by {@linkcode forTokens}, fewer. */
export interface BatchStep {
  /** Number of tokens: one of each sequence that takes part. */
  readonly range: PrefillRange;
  /** Embeds {@linkcode BatchBuffers.tokens}. */
  readonly embed: readonly Dispatch[];
  /** All layers. */
  readonly layers: readonly Dispatch[];
  /** Final norm and head. */
  readonly head: readonly Dispatch[];
  /** Takes the most likely tokens. */
  readonly pickBest: readonly Dispatch[];
  /** Draws tokens. */
  readonly pickSampled: readonly Dispatch[];
}

/**
 * Makes the dispatches of a step; they serve every position.
 *
 * @param range of as many tokens as the step may have
 */
export async function createBatchStep(
  gpu: Gpu,
  weights: EngineWeights,
  range: PrefillRange,
  buffers: BatchBuffers,
): Promise<BatchStep> {
  const { config, embedding, finalNorm, head } = weights;
  const { hidden, normed, logits, candidates } = buffers;
  const { vocabulary, normEpsilon: epsilon } = config;
  const tokens = range.maxTokens;
  const { capacity } = buffers.caches[0];
  const advanced = { ...buffers, embedding, tokens: buffers.chosen, stride: capacity + 1 };
  const norm = { hidden: config.hidden, epsilon, x: hidden, weight: finalNorm, y: normed };
  return {
    range,
    embed: await embedTokens(gpu, embedding, range, buffers.tokens, hidden),
    layers: await createLayers(gpu, weights, range, buffers),
    head: [await rmsNorm(gpu, range, norm), ...await multiplyFew(gpu, head, { range, x: normed, y: logits })],
    pickBest: [
      await argmax(gpu, vocabulary, logits, candidates, tokens),
      ...await advance(gpu, CANDIDATES, advanced, tokens),
    ],
    pickSampled: [
      await sample(gpu, vocabulary, buffers, tokens),
      ...await advance(gpu, 1, advanced, tokens),
    ],
  };
}

/**
 * Dispatches for the first tokens of a step only. Kernels with a range skip the others themselves; those without have a
 * workgroup.z for each token.
 */
export function forTokens(dispatches: readonly Dispatch[], tokens: number): Dispatch[] {
  return dispatches.map((dispatch) => {
    const [x, y, z] = dispatch.workgroups;
    return { ...dispatch, workgroups: [x, y, Math.min(z, tokens)] };
  });
}

async function createLayers(
  gpu: Gpu,
  weights: EngineWeights,
  range: PrefillRange,
  buffers: BatchBuffers,
): Promise<Dispatch[]> {
  const { config, layers } = weights;
  const { caches, partials, mixed } = buffers;
  const { heads, headSize } = config;
  const splits = batchSplits(gpu, config, range.maxTokens, caches[0].capacity);
  const joined = { kind: "attention", partials, splits, headSize } as const;
  const dispatches: Dispatch[] = [];
  for (const [i, layer] of layers.entries()) {
    const attention = { ...buffers, cache: caches[i], ...attentionExtras(config, layer) };
    const attend = [
      await decodeAttention(gpu, attentionShape(config), splits, attention, range.maxTokens),
      await joinSplits(gpu, range, heads * headSize, joined, mixed),
    ];
    dispatches.push(...await layerPass(gpu, config, layer, range, buffers, attend, multiplyFew));
  }
  return dispatches;
}

/** Splits of each sequence at all its lengths, since sequences of one step differ in theirs. */
function batchSplits(gpu: Gpu, config: ModelConfig, size: number, capacity: number): number {
  return chooseSplits(gpu.profile, attentionShape(config), capacity, size);
}
