/**
 * Taking many tokens through all layers at once: prompts, and text to score.
 *
 * @module
 */
import { addBias } from "../kernels/add_bias.ts";
import { embedTokens } from "../kernels/embed_tokens.ts";
import type { Dispatch, Gpu } from "../kernels/gpu.ts";
import type { KeyValueCache } from "../kernels/key_value_cache.ts";
import { gemm, type WeightMatrix } from "../kernels/linear.ts";
import { prefillAttention } from "../kernels/prefill_attention.ts";
import { createPrefillRange, type PrefillRange, setPrefillRange } from "../kernels/prefill_range.ts";
import { rmsNorm } from "../kernels/rms_norm.ts";
import { ropeCache } from "../kernels/rope_cache.ts";
import { siluProduct } from "../kernels/silu_product.ts";
import { type BufferOwner, withOwner } from "./buffer_owner.ts";
import { attentionExtras, attentionShape } from "./decode_step.ts";
import type { EngineLayer, EngineWeights, JoinedLinear } from "./engine_weights.ts";

/** Most tokens of one pass; longer texts take several. */
export const PASS_TOKENS = 512;

/** Tokens that passes are made for: a pass with fewer leaves workgroups idle. */
const PASS_SIZES = [16, 128, PASS_TOKENS];

/** Takes tokens into a sequence's cache. */
export interface Prefill {
  /** f32 [{@linkcode PASS_TOKENS}, hidden]: the residual stream of the last pass, before the final norm. */
  readonly hidden: GPUBuffer;
  /**
   * Submits a pass.
   *
   * @param tokens at most {@linkcode PASS_TOKENS}
   * @param position of the first
   */
  run(tokens: Uint32Array<ArrayBuffer>, position: number): Promise<void>;
  /** Frees its buffers. */
  destroy(): void;
}

/** Buffers for {@linkcode PASS_TOKENS} tokens, T. */
interface PassBuffers {
  /** u32 [T]. */
  readonly tokens: GPUBuffer;
  /** f32 [T, hidden]: the residual stream. */
  readonly hidden: GPUBuffer;
  /** f32 [T, hidden]. */
  readonly normed: GPUBuffer;
  /** f32 [T, (heads + 2 keyValueHeads) * headSize]. */
  readonly qkv: GPUBuffer;
  /** f32 [T, heads * headSize]. */
  readonly mixed: GPUBuffer;
  /** f32 [T, 2 * intermediate]. */
  readonly gateUp: GPUBuffer;
  /** f32 [T, intermediate]. */
  readonly inner: GPUBuffer;
}

/** Where a sequence's keys and values go, and the angles of its positions. */
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
  const make = (label: string, width: number) => owner.make(label, PASS_TOKENS * width);
  const { hidden, heads, keyValueHeads, headSize, intermediate } = weights.config;
  const buffers: PassBuffers = {
    tokens: await make("tokens", 1),
    hidden: await make("hidden", hidden),
    normed: await make("normed", hidden),
    qkv: await make("qkv", (heads + 2 * keyValueHeads) * headSize),
    mixed: await make("mixed", heads * headSize),
    gateUp: await make("gate and up", 2 * intermediate),
    inner: await make("inner", intermediate),
  };
  const passes = new Map<number, { range: PrefillRange; dispatches: readonly Dispatch[] }>();
  const openPass = async (size: number) => {
    const range = await createPrefillRange(gpu, size);
    owner.own(range.buffer);
    const pass = { range, dispatches: await createPass(gpu, weights, sequence, buffers, range) };
    passes.set(size, pass);
    return pass;
  };
  return {
    hidden: buffers.hidden,
    async run(tokens, position) {
      const size = PASS_SIZES.find((most) => tokens.length <= most) ?? PASS_TOKENS;
      const { range, dispatches } = passes.get(size) ?? await openPass(size);
      setPrefillRange(gpu, range, tokens.length, position);
      gpu.write(buffers.tokens, tokens);
      gpu.submit(dispatches);
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
  const dispatches = await embedTokens(gpu, weights.embedding, range, buffers.tokens, buffers.hidden);
  for (const [i, layer] of weights.layers.entries()) {
    dispatches.push(...await layerDispatches(gpu, weights, layer, caches[i], rotations, buffers, range));
  }
  return dispatches;
}

async function layerDispatches(
  gpu: Gpu,
  { config }: EngineWeights,
  layer: EngineLayer,
  cache: KeyValueCache,
  rotations: GPUBuffer,
  buffers: PassBuffers,
  range: PrefillRange,
): Promise<Dispatch[]> {
  const { hidden, normed, qkv, mixed, gateUp, inner } = buffers;
  const shape = attentionShape(config);
  const norm = { hidden: config.hidden, epsilon: config.normEpsilon, x: hidden, y: normed };
  const rope = { qkv, rotations, cache, ...attentionExtras(config, layer) };
  return [
    await rmsNorm(gpu, range, { ...norm, weight: layer.attentionNorm }),
    ...await joinedGemm(gpu, layer.qkv, range, normed, qkv),
    await ropeCache(gpu, shape, range, rope),
    await prefillAttention(gpu, shape, range, qkv, cache, mixed),
    ...await joinedGemm(gpu, layer.o, range, mixed, hidden, true),
    ...(layer.outputBias ? [await addBias(gpu, range, config.hidden, layer.outputBias, hidden)] : []),
    await rmsNorm(gpu, range, { ...norm, weight: layer.mlpNorm }),
    ...await joinedGemm(gpu, layer.gateUp, range, normed, gateUp),
    await siluProduct(gpu, range, config.intermediate, gateUp, inner),
    ...await joinedGemm(gpu, layer.down, range, inner, hidden, true),
  ];
}

async function joinedGemm(
  gpu: Gpu,
  parts: JoinedLinear,
  range: PrefillRange,
  x: GPUBuffer,
  y: GPUBuffer,
  addToY = false,
): Promise<Dispatch[]> {
  const dispatches = await Promise.all(parts.map((matrix: WeightMatrix) => gemm(gpu, matrix, range, x, y, { addToY })));
  return dispatches.flat();
}
