/**
 * The dispatches of a decode step of several sequences: one token of each through all layers to the choice of the next.
 *
 * @module
 */
import { combineAttention } from "../kernels/combine_attention.ts";
import { chooseSplits, decodeAttention, partialsLength } from "../kernels/decode_attention.ts";
import { embedTokens } from "../kernels/embed_tokens.ts";
import type { Dispatch, Gpu } from "../kernels/gpu.ts";
import { gemm } from "../kernels/linear.ts";
import { advance, argmax, CANDIDATES, sample, SAMPLING_BYTES } from "../kernels/pick_token.ts";
import { createPrefillRange, type PrefillRange } from "../kernels/prefill_range.ts";
import { rmsNorm } from "../kernels/rms_norm.ts";
import type { BufferOwner } from "./buffer_owner.ts";
import type { ModelConfig } from "./config.ts";
import { attentionExtras, attentionShape } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createPassBuffers, layerPass, type PassBuffers } from "./layer_pass.ts";
import type { SequenceBuffers } from "./prefill.ts";
import { rotationTable } from "./rope.ts";
import { createCaches, roundCapacity } from "./sequence_cache.ts";

/** Buffers that a step of up to T sequences works in; C is the capacity of a sequence. */
export interface BatchBuffers extends PassBuffers, SequenceBuffers {
  /** Number of tokens in the step: one of each sequence that takes part. */
  readonly range: PrefillRange;
  /** f32 [T, partialsLength]: attention's partial results. */
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

/** Makes the buffers. @throws {OutOfMemoryError} when the device has no room */
export async function createBatchBuffers(
  gpu: Gpu,
  config: ModelConfig,
  sequences: number,
  tokens: number,
  owner: BufferOwner,
): Promise<BatchBuffers> {
  const capacity = roundCapacity(tokens);
  const words = (label: string, width: number) => owner.make(label, sequences * width);
  const range = await createPrefillRange(gpu, sequences);
  owner.own(range.buffer);
  const splits = batchSplits(gpu, config, sequences, capacity);
  return {
    ...await createPassBuffers(owner, config, sequences),
    caches: await createCaches(owner, config, capacity, sequences),
    rotations: owner.own(await gpu.uploadStorage("rotations", rotationTable(config.rope, config.headSize, capacity))),
    range,
    partials: await words("partials", partialsLength(attentionShape(config), splits)),
    logits: await words("logits", config.vocabulary),
    candidates: await words("candidates", 2 * CANDIDATES),
    settings: await words("sampling", SAMPLING_BYTES / 4),
    sequence: await words("sequence", 2),
    chosen: await words("chosen tokens", capacity + 1),
    gathered: await words("gathered tokens", capacity),
  };
}

/** A decode step, up to the logits and from them. Its dispatches cover all sequences; see {@linkcode forTokens}. */
export interface BatchStep {
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

/** Makes the dispatches of a step; they serve every position. */
export async function createBatchStep(gpu: Gpu, weights: EngineWeights, buffers: BatchBuffers): Promise<BatchStep> {
  const { config, embedding, finalNorm, head } = weights;
  const { hidden, normed, logits, range, candidates } = buffers;
  const { vocabulary, normEpsilon: epsilon } = config;
  const tokens = range.maxTokens;
  const { capacity } = buffers.caches[0];
  const advanced = { ...buffers, embedding, tokens: buffers.chosen, stride: capacity + 1 };
  const norm = { hidden: config.hidden, epsilon, x: hidden, weight: finalNorm, y: normed };
  return {
    embed: await embedTokens(gpu, embedding, range, buffers.tokens, hidden),
    layers: await createLayers(gpu, weights, buffers),
    head: [await rmsNorm(gpu, range, norm), ...await gemm(gpu, head, range, normed, logits)],
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

async function createLayers(gpu: Gpu, weights: EngineWeights, buffers: BatchBuffers): Promise<Dispatch[]> {
  const { config, layers } = weights;
  const { caches, partials, range, mixed } = buffers;
  const { heads, headSize } = config;
  const splits = batchSplits(gpu, config, range.maxTokens, caches[0].capacity);
  const combined = { kind: "attention", partials, splits, headSize } as const;
  const dispatches: Dispatch[] = [];
  for (const [i, layer] of layers.entries()) {
    const attention = { ...buffers, cache: caches[i], ...attentionExtras(config, layer) };
    dispatches.push(
      ...await layerPass(gpu, config, layer, range, buffers, [
        await decodeAttention(gpu, attentionShape(config), splits, attention, range.maxTokens),
        await combineAttention(gpu, range, heads * headSize, combined, mixed),
      ]),
    );
  }
  return dispatches;
}

/** Splits of each sequence at all its lengths, since sequences of one step differ in theirs. */
function batchSplits(gpu: Gpu, config: ModelConfig, sequences: number, capacity: number): number {
  return chooseSplits(gpu, attentionShape(config), capacity, sequences);
}
