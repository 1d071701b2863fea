// Launcher of attention for one new token of a sequence, or of each of some sequences.
import { type DeviceProfile, evenWorkgroups } from "../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import {
  attentionConstants,
  type AttentionShape,
  cacheRowsPart,
  checkAttentionShape,
  type KeyValueCache,
} from "./key_value_cache.ts";
import { chooseTeam, type Team } from "../gpu/team.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/** Buffers of {@linkcode decodeAttention}, for one new token or `tokens` of them, each of another sequence. */
export interface DecodeAttentionBuffers {
  /** f32 [tokens, (heads + 2 keyValueHeads) * headSize]: q, k and v, as the linear layers leave them. */
  readonly qkv: GPUBuffer;
  /** f32 [capacity, headSize / 2, 2]: cosine and sine of each position's angles. */
  readonly rotations: GPUBuffer;
  /** Where keys and values are appended. */
  readonly cache: KeyValueCache;
  /** u32 [tokens, 2]: the token's position, below the cache's capacity, and the index of its sequence in the cache. */
  readonly sequence: GPUBuffer;
  /** f32 [tokens, {@linkcode partialsLength}]. */
  readonly partials: GPUBuffer | GPUBufferBinding;
  /** f32 [(heads + 2 keyValueHeads) * headSize], added to qkv. */
  readonly bias?: GPUBuffer;
  /** RMSNorm of each head of q and k before rotation, in models that have it. */
  readonly headNorm?: {
    /** f32 [2, headSize]: weights for q, then for k. */
    readonly weights: GPUBuffer;
    /** Added under the root. */
    readonly epsilon: number;
  };
}

/**
 * Elements of a token's partial results: sums [splits, heads * headSize], then maximum and sum of exp [splits, heads, 2].
 * Those of one split are the attention itself.
 */
export function partialsLength({ heads, headSize }: AttentionShape, splits: number): number {
  return splits * heads * (headSize + (splits === 1 ? 0 : 2));
}

/** Tokens up to which a sequence is short, and middling. */
export const [SHORT_TOKENS, MIDDLE_TOKENS] = [256, 1024] as const;

/**
 * Splits of a sequence, at most 16. A short one has one, which nothing need combine; a long one has two workgroups for
 * each multiprocessor, a middling one has one, so that more keys are in flight. Heads that aren't whole sixteens have
 * one, since a packed product that combines its input takes it 16 channels at a time.
 *
 * @param tokens length of the sequence
 * @param sequences that attend in one dispatch
 */
export function chooseSplits(profile: DeviceProfile, shape: AttentionShape, tokens: number, sequences = 1): number {
  if (tokens <= SHORT_TOKENS || shape.headSize % 16 !== 0) return 1;
  const workgroups = evenWorkgroups(profile) * (tokens <= MIDDLE_TOKENS ? 1 : 2);
  return splitsWithin(profile, attentionGroups(shape), workgroups / sequences);
}

/**
 * Splits of a sequence, each of so many groups of heads, that together are at most so many workgroups, 1 to 16; a
 * software adapter is busy with one.
 */
export function splitsWithin({ software }: DeviceProfile, groups: number, workgroups: number): number {
  return software ? 1 : Math.max(1, Math.min(16, Math.floor(workgroups / groups)));
}

/** Lanes over which the channels of a key are spread, 8 each. */
export function attentionRowLanes({ headSize }: AttentionShape): number {
  return 2 ** Math.ceil(Math.log2(headSize / 8));
}

/** Query heads that a workgroup takes at once. */
export function queriesOf({ heads, keyValueHeads }: AttentionShape): 1 | 4 {
  return heads === keyValueHeads ? 1 : 4;
}

/** Groups of query heads, each with one key head. */
export function attentionGroups(shape: AttentionShape): number {
  return shape.keyValueHeads * Math.ceil(shape.heads / shape.keyValueHeads / queriesOf(shape));
}

/**
 * As many threads as workgroup memory has room to merge the results of: the more, the more keys are in flight. Where
 * more than two workgroups share a multiprocessor there are enough anyway, and half as many merge sooner. A software
 * adapter has nothing in flight and pays for each thread.
 */
export function chooseWorkgroupSize(
  { software, multiprocessors, workgroupBytes, workgroupThreads }: DeviceProfile,
  team: Team,
  queries: 1 | 4,
  rowLanes: number,
  workgroups: number,
): number {
  const mergeLanes = Math.min(team.lanes, 4 * rowLanes);
  const threadBytes = (4 * queries * (8 * rowLanes + 2)) / mergeLanes + team.exchangeBytes;
  let size = software ? 64 : workgroups > 2 * multiprocessors ? 128 : 256;
  while (size > workgroupThreads || size * threadBytes > workgroupBytes) size /= 2;
  return size;
}

/**
 * Dispatch that appends each token's key and value to the cache and writes its attention as partial results of `splits`
 * parts of the sequence, which the input `attention` of the linear kernels combines. workgroup.z is the token.
 *
 * @throws {RangeError} for a head size that is no multiple of 8 up to 256
 */
export async function decodeAttention(
  gpu: Gpu,
  shape: AttentionShape,
  splits: number,
  buffers: DecodeAttentionBuffers,
  tokens = 1,
): Promise<Dispatch> {
  checkAttentionShape(shape);
  const { qkv, rotations, cache, sequence, partials, bias, headNorm } = buffers;
  const rowLanes = attentionRowLanes(shape);
  const team = chooseTeam(gpu.profile, rowLanes);
  const queries = queriesOf(shape);
  const workgroups = [attentionGroups(shape), splits, tokens] as const;
  const parts = [`queries_${queries}`, team.exchange, cacheRowsPart(cache)] as const;
  return await gpu.makeDispatch(joinShader(wgsl, "decode_attention", ...parts), {
    constants: {
      ...attentionConstants(shape, cache),
      splits,
      row_lanes: rowLanes,
      merge_lanes: Math.min(team.lanes, 4 * rowLanes),
      workgroup_size: chooseWorkgroupSize(gpu.profile, team, queries, rowLanes, workgroups[0] * splits * tokens),
      has_bias: bias ? 1 : 0,
      has_norm: headNorm ? 1 : 0,
      norm_epsilon: headNorm?.epsilon ?? 0,
    },
    buffers: {
      qkv,
      rotations,
      keys: cache.keys,
      values: cache.values,
      sequence,
      partials,
      bias: bias ?? qkv,
      norms: headNorm?.weights ?? qkv,
    },
    workgroups,
  });
}
