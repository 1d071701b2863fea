// Attention of windows of text that lie side by side: each attends to itself, everything else takes them as one text.
import type { KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { prefillAttention } from "../../kernels/attention/prefill_attention.ts";
import { ropeCache } from "../../kernels/attention/rope_cache.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm, type MultiplyRange } from "../../kernels/product/linear.ts";
import { embedTokens } from "../../kernels/tokens/embed_tokens.ts";
import type { TokenRange } from "../../kernels/tokens/token_range.ts";
import type { ModelConfig } from "../llama/config.ts";
import { STAGES, widestOf } from "../llama/layer.ts";
import type { EngineWeights, LayerVectors } from "./engine_weights.ts";
import {
  attentionExtras,
  attentionShape,
  linksOf,
  type Mixing,
  type PassBuffers,
  passOperations,
} from "./layer_operations.ts";

/** What their attention goes from and to, beside `qkv` and `mixed`. */
export interface JoinedAttentionBuffers extends Pick<PassBuffers, "qkv" | "mixed"> {
  /** Keys and values, a sequence for each window. */
  readonly cache: KeyValueCache;
  /** f32 [positions, headSize / 2, 2]. */
  readonly rotations: GPUBuffer;
}

/** Tokens that go side by side at most: more of them don't make products faster. */
const JOINED_TOKENS = 8192;

/** Bytes of their widest buffer at most: of large models fewer go side by side, which fill the device too. */
export const JOINED_BYTES = 2 ** 27;

/** The most tokens that go through a layer side by side. */
export function mostJoined(config: ModelConfig, limitBytes: number = JOINED_BYTES): number {
  return Math.floor(Math.min(JOINED_TOKENS, limitBytes / (4 * widestOf(config))));
}

/** The part of a buffer f32 [windows, tokens, width] that belongs to a window. */
export function windowOf(
  buffer: GPUBuffer,
  { maxTokens }: TokenRange,
  window: number,
  width: number,
): Required<GPUBufferBinding> {
  const size = 4 * maxTokens * width;
  return { buffer, offset: window * size, size };
}

/**
 * What makes `mixed` from `qkv`.
 *
 * @param range of all windows, as the sequences that it has
 * @param unit of `mixed`, where it is made in f16
 */
export async function joinedAttention(
  gpu: Gpu,
  config: ModelConfig,
  layer: LayerVectors,
  range: TokenRange,
  { qkv, mixed: out, cache, rotations }: JoinedAttentionBuffers,
  unit?: number,
): Promise<Mixing> {
  const shape = attentionShape(config);
  const dispatches = [
    await ropeCache(gpu, shape, range, { qkv, rotations, cache, ...attentionExtras(config, layer) }),
    await prefillAttention(gpu, shape, range, { qkv, cache, out, outUnit: unit }),
  ];
  return { dispatches, unit };
}

/**
 * Dispatches that embed tokens and take them through all layers.
 *
 * @param caches of each layer, or one that all use in turn
 */
export async function joinedPass(
  gpu: Gpu,
  { config, embedding, layers }: EngineWeights,
  range: TokenRange,
  buffers: PassBuffers,
  { caches, rotations }: { readonly caches: readonly KeyValueCache[]; readonly rotations: GPUBuffer },
  multiply: MultiplyRange = gemm,
): Promise<Dispatch[]> {
  const dispatches = await embedTokens(gpu, embedding, range, buffers.tokens, buffers.hidden);
  for (const [i, layer] of layers.entries()) {
    const attention = { ...buffers, cache: caches[i % caches.length], rotations };
    const mixing = await joinedAttention(gpu, config, layer, range, attention, multiply.inputUnit);
    const operations = await passOperations(
      gpu,
      config,
      layer,
      range,
      buffers,
      mixing,
      multiply,
      STAGES,
      linksOf(layers, i, multiply),
    );
    dispatches.push(...operations.flatMap((operation) => operation.dispatches));
  }
  return dispatches;
}
