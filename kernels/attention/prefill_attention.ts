// Launcher of the attention kernel for many tokens.
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { attentionConstants, type AttentionShape, cacheRowsPart, checkAttentionShape } from "./key_value_cache.ts";
import type { TokenRange } from "../tokens/token_range.ts";
import { foursConstants, foursPart } from "../gpu/fours.ts";
import { joinShader } from "../gpu/shader.ts";
import type { RopeCache } from "./rope_cache.ts";
import * as wgsl from "./wgsl.ts";

/** Queries of a workgroup. */
const TILE_QUERIES = 64;

/** Largest head of which matrix_attention.wgsl has queries and outputs in registers. */
const MATRIX_HEAD_SIZE = 128;

/** A block of 16 rows x 32 columns there, see gpu/parts/matrices.wgsl. */
const MATRIX_BLOCK_BYTES = 1280;

/** Bytes of workgroup memory that it takes: a tile of keys, scores and weights. */
function matrixBytes(headSize: number): number {
  return MATRIX_BLOCK_BYTES * (4 * Math.ceil(headSize / 32) + 8) + 64 * 4 * 68;
}

/** Buffers of {@linkcode prefillAttention}. */
export interface PrefillAttentionBuffers extends Pick<RopeCache, "qkv" | "cache"> {
  /** f32 [tokens, heads * headSize]; or in f16, in units of `outUnit`. */
  readonly out: GPUBuffer | GPUBufferBinding;
  /** Default: f32. */
  readonly outUnit?: number | undefined;
}

/**
 * Dispatch of causal attention over what `ropeCache` leaves: out = softmax(q kᵀ / sqrt(headSize)) v, for the tokens of
 * a range over all keys that the cache holds up to each of the same sequence; by matrix units where the device has them,
 * with factors in f16.
 */
export async function prefillAttention(
  gpu: Gpu,
  shape: AttentionShape,
  range: TokenRange,
  { qkv, cache, out, outUnit }: PrefillAttentionBuffers,
): Promise<Dispatch> {
  checkAttentionShape(shape);
  const { heads, headSize } = shape;
  const { matrixUnits, workgroupBytes } = gpu.profile;
  const byMatrices = matrixUnits && headSize <= MATRIX_HEAD_SIZE && matrixBytes(headSize) <= workgroupBytes;
  const kernel = byMatrices ? "matrix_attention" : "prefill_attention";
  return await gpu.makeDispatch(joinShader(wgsl, kernel, foursPart(outUnit), cacheRowsPart(cache)), {
    constants: { ...foursConstants(outUnit), ...attentionConstants(shape, cache) },
    buffers: { range: range.buffer, qkv, keys: cache.keys, values: cache.values, out },
    workgroups: [heads, Math.ceil(range.maxTokens / range.sequences / TILE_QUERIES), range.sequences],
  });
}
