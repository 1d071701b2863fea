/**
 * Taking many tokens through all layers at once: prompts, and text to score.
 *
 * @module
 */
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { createPrefillRange, type PrefillRange, setPrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import { type BufferOwner, withOwner } from "./buffer_owner.ts";
import { attentionExtras, attentionShape } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { letOthersRun } from "../host/event_loop.ts";
import { createPassBuffers, layerPass, type PassBuffers } from "./layer_pass.ts";

/** Most tokens of one pass; longer texts take several. */
export const PASS_TOKENS = 512;

/** Tokens that passes are made for: a pass with fewer leaves workgroups idle. */
const PASS_SIZES = [16, 128, PASS_TOKENS];

/** Takes tokens into the cache of a sequence, or of one of several. */
export interface Prefill {
  /** f32 [{@linkcode PASS_TOKENS}, hidden]: the residual stream of the last pass, before the final norm. */
  readonly hidden: GPUBuffer;
  /**
   * Takes tokens into a sequence's cache, pass by pass, and gives those of a pass when it is submitted.
   *
   * @param position of the first
   * @param signal ends the work between two passes
   * @param sequence index of the sequence in the cache; default: 0
   * @throws the signal's reason
   */
  takeIn(
    tokens: Uint32Array<ArrayBuffer>,
    position: number,
    signal?: AbortSignal,
    sequence?: number,
  ): AsyncGenerator<Uint32Array<ArrayBuffer>, void>;
  /** Frees its buffers. */
  destroy(): void;
}

/** Where keys and values of a sequence, or of several, go, and the angles of their positions. */
export interface SequenceBuffers {
  /** Keys and values of each layer. */
  readonly caches: readonly KeyValueCache[];
  /** f32 [capacity, headSize / 2, 2]: cosine and sine. */
  readonly rotations: GPUBuffer;
}

/** Makes the buffers; dispatches are made when a size of pass is first used. */
export function createPrefill(gpu: Gpu, weights: EngineWeights, sequence: SequenceBuffers): Promise<Prefill> {
  return withOwner(gpu, (owner) => createOwned(gpu, weights, sequence, owner));
}

async function createOwned(
  gpu: Gpu,
  weights: EngineWeights,
  sequence: SequenceBuffers,
  owner: BufferOwner,
): Promise<Prefill> {
  const buffers = await createPassBuffers(owner, weights.config, PASS_TOKENS);
  const passes = new Map<number, { range: PrefillRange; dispatches: readonly Dispatch[] }>();
  const openPass = async (size: number) => {
    const range = await createPrefillRange(gpu, size);
    owner.own(range.buffer);
    const pass = { range, dispatches: await createPass(gpu, weights, sequence, buffers, range) };
    passes.set(size, pass);
    return pass;
  };
  const run = async (tokens: Uint32Array<ArrayBuffer>, position: number, index: number) => {
    const size = PASS_SIZES.find((most) => tokens.length <= most) ?? PASS_TOKENS;
    const { range, dispatches } = passes.get(size) ?? await openPass(size);
    setPrefillRange(gpu, range, tokens.length, position, index);
    gpu.write(buffers.tokens, tokens);
    gpu.submit(dispatches);
  };
  return {
    hidden: buffers.hidden,
    async *takeIn(tokens, position, signal, sequence = 0) {
      for (let first = 0; first < tokens.length; first += PASS_TOKENS) {
        if (first > 0) await gpu.wait();
        await letOthersRun();
        signal?.throwIfAborted();
        const part = tokens.slice(first, first + PASS_TOKENS);
        await run(part, position + first, sequence);
        yield part;
      }
    },
    destroy: owner.destroy,
  };
}

async function createPass(
  gpu: Gpu,
  weights: EngineWeights,
  { caches, rotations }: SequenceBuffers,
  buffers: PassBuffers,
  range: PrefillRange,
): Promise<Dispatch[]> {
  const { config, embedding, layers } = weights;
  const { qkv, mixed } = buffers;
  const shape = attentionShape(config);
  const dispatches = await embedTokens(gpu, embedding, range, buffers.tokens, buffers.hidden);
  for (const [i, layer] of layers.entries()) {
    const cache = caches[i];
    dispatches.push(
      ...await layerPass(gpu, config, layer, range, buffers, [
        await ropeCache(gpu, shape, range, { qkv, rotations, cache, ...attentionExtras(config, layer) }),
        await prefillAttention(gpu, shape, range, { qkv, cache, out: mixed }),
      ]),
    );
  }
  return dispatches;
}
