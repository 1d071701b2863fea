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

/** Keys (rotated) and values of one sequence or more in one layer. */
export interface KeyValueCache {
  /** Tokens that each sequence has room for. */
  readonly capacity: number;
  /** f16 [sequences, keyValueHeads, capacity, headSize]. */
  readonly keys: Plane;
  /** f16 [sequences, keyValueHeads, capacity, headSize]. */
  readonly values: Plane;
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
