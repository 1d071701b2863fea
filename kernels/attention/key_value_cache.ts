// Keys and values of a sequence on the device, and the sizes that attention kernels share.
import type { Plane } from "../gpu/plane.ts";

/** Heads of an attention layer. */
export interface AttentionShape {
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; each serves heads / keyValueHeads query heads. */
  readonly keyValueHeads: number;
  /** Elements of a head: a multiple of 8, at most 256. */
  readonly headSize: number;
  /** Keys that a query sees, itself included, where they are limited. */
  readonly slidingWindow?: number;
}

/** Bits of a key's or value's element in a cache. */
export type CacheBits = 8 | 16;

/**
 * Keys (rotated) and values of one sequence or more in one layer: a row for each token, [sequences, keyValueHeads,
 * capacity], of {@linkcode cacheRowBytes}; with 16 bits f16 [headSize], with 8 as kernels/attention/parts/cache_bytes.wgsl
 * says.
 */
export interface KeyValueCache {
  /** Tokens that each sequence has room for. */
  readonly capacity: number;
  /** Rows of keys; with 8 bits also the factors of the values. */
  readonly keys: Plane;
  /** Rows of values. */
  readonly values: Plane;
  /** Default: 16. */
  readonly bits?: CacheBits;
}

/** Bytes of a row of keys, and of a row of values. */
export function cacheRowBytes({ headSize }: Pick<AttentionShape, "headSize">, bits: CacheBits = 16) {
  return bits === 16 ? { keys: 2 * headSize, values: 2 * headSize } : { keys: headSize + 8, values: headSize };
}

/** The part that says how rows of a cache are stored. */
export function cacheRowsPart({ bits }: KeyValueCache): "cache_bytes" | "cache_halves" {
  return bits === 8 ? "cache_bytes" : "cache_halves";
}

/**
 * Why attention kernels don't serve a shape: a head cannot be read in eights, or heads don't divide; undefined where
 * they do.
 */
export function whyNotAttended({ heads, keyValueHeads, headSize }: AttentionShape): string | undefined {
  if (headSize % 8 !== 0 || headSize > 256) return `head size is ${headSize}, must be a multiple of 8 up to 256`;
  return heads % keyValueHeads === 0 ? undefined : `heads is ${heads}, must be a multiple of ${keyValueHeads}`;
}

/** Checks that attention kernels serve a shape. @throws {RangeError} */
export function checkAttentionShape(shape: AttentionShape): void {
  const why = whyNotAttended(shape);
  if (why !== undefined) throw new RangeError(why);
}

/** Constants of kernels that go over a cache: the sizes that they share. */
export function attentionConstants(shape: AttentionShape, { capacity }: KeyValueCache): Record<string, number> {
  const { heads, keyValueHeads, headSize, slidingWindow } = shape;
  const sizes = { heads, key_value_heads: keyValueHeads, head_size: headSize, capacity };
  return slidingWindow === undefined ? sizes : { ...sizes, window: slidingWindow };
}
