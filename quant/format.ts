// The packed format, version 2: its sizes, its two zero tables and the arithmetic of one weight.
//
// Every quantity in a weight is a small dyadic fraction, so decoding is exact:
//
//     w = (base + refine / 4 - zero) * scaleCode * d
//
// `base` is 0..3, `refine` 0..3 (0 where the group is not refined), `zero` a multiple of 1/32 and
// `scaleCode` 0..15; their product needs at most 11 bits, `d` is an f16 (11 bits), so `w` is exact in
// f32 in any order of operations. Readers in other languages agree bit for bit.

/** Consecutive input channels of one output row that share a scale and a zero (the paper's g1). */
export const GROUP_CHANNELS = 16;

/** Consecutive groups of one row that form a block, of which one is refined by default; a row may end in half a block. */
export const BLOCK_GROUPS = 8;

/** Groups of half a block, the unit of the memory layout: those that one meta word serves. */
export const HALF_BLOCK_GROUPS = 4;

/** Input channels of half a block: one vec4<u32> load of the base plane. */
export const HALF_BLOCK_CHANNELS = GROUP_CHANNELS * HALF_BLOCK_GROUPS;

/** Output rows that share one second-order scale per group column (the paper's g2). */
export const TILE_ROWS = 16;

/** Number of scale codes; the code 0 makes a group exactly zero. */
export const SCALE_CODES = 16;

export const ZERO_CODES = 8;

/** Version of the packed format that this code writes. */
export const FORMAT_VERSION = 2;

/**
 * Zero of a 2-bit group by zero code, in units of one base code: 0.625, 0.875, ... 2.375.
 *
 * Choice: the paper stores an integer zero in 2 bits; a fractional zero in 3 bits costs 1/16 bit a weight
 * and is worth more than the same bits spent on 4-bit groups.
 */
export const BASE_ZEROS: readonly number[] = zeroTable(0.625, 0.25);

/** Zero of a refined (4-bit) group by zero code, in units of one base code: 1.21875, 1.40625, ... 2.53125. */
export const REFINED_ZEROS: readonly number[] = zeroTable(1.21875, 0.1875);

function zeroTable(first: number, step: number): number[] {
  return Array.from({ length: ZERO_CODES }, (_, code) => first + step * code);
}

/**
 * Share of refined groups: one in every `n` groups of a row, or `"none"`.
 * 8 (one a block) is the format's default; the others are the sweep of `four_bit_share`.
 */
export type RefineEvery = "none" | 16 | 8 | 4 | 2 | 1;

/** All legal values of {@linkcode RefineEvery}, from no refined group to all of them. */
export const REFINE_EVERY: readonly RefineEvery[] = ["none", 16, 8, 4, 2, 1];

/** Half blocks of a row with `channels` input channels, the last one padded with zero weights. */
export function halfBlocksPerRow(channels: number): number {
  return Math.ceil(channels / HALF_BLOCK_CHANNELS);
}

/** Groups of a row with `channels` input channels, with padding. */
export function groupsPerRow(channels: number): number {
  return halfBlocksPerRow(channels) * HALF_BLOCK_GROUPS;
}

/** Words of the refine plane in a row of `groups` groups: one for each run, of which the last may be short. */
export function refineWordsPerRow(groups: number, refineEvery: RefineEvery): number {
  return refineEvery === "none" ? 0 : Math.ceil(groups / refineEvery);
}

/** Tiles along the rows of a matrix. */
export function tilesPerColumn(rows: number): number {
  return Math.ceil(rows / TILE_ROWS);
}
