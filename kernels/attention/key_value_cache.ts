/**
 * Keys and values of a sequence on the device, and the sizes that attention kernels share.
 *
 * @module
 */
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

/** Checks that attention kernels serve a shape. @throws {RangeError} when a head cannot be read in eights, or heads don't divide */
export function checkAttentionShape({ heads, keyValueHeads, headSize }: AttentionShape): void {
  if (headSize % 8 !== 0 || headSize > 256) {
    throw new RangeError(`head size is ${headSize}, must be a multiple of 8 up to 256`);
  }
  if (heads % keyValueHeads !== 0) throw new RangeError(`heads is ${heads}, must be a multiple of ${keyValueHeads}`);
}
