/**
 * Min/max scales: the plain baseline of round-to-nearest and GPTQ.
 *
 * @module
 */
import type { Grid } from "./grid.ts";

/** Lowest and highest weight of a group, 0 included. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Range of each group of a matrix, stretched to include 0 as GPTQ does: [rows, groups]. */
export function groupRanges(weights: Float32Array, rows: number, groupOf: Uint16Array, groups: number): Range[] {
  const channels = groupOf.length;
  const ranges = Array.from({ length: rows * groups }, () => ({ min: 0, max: 0 }));
  for (let at = 0; at < weights.length; at++) {
    const range = ranges[Math.floor(at / channels) * groups + groupOf[at % channels]];
    const weight = weights[at];
    if (weight < range.min) range.min = weight;
    else if (weight > range.max) range.max = weight;
  }
  return ranges;
}

/** Scale that spreads a range over `maxCode + 1` codes. */
export function minMaxScale({ min, max }: Range, maxCode: number): number {
  return (max - min) / maxCode;
}

/** Integer zero of a range under a scale: the code that means 0. */
export function integerZero({ min }: Range, scale: number, maxCode: number): number {
  return scale === 0 ? 0 : Math.min(maxCode, Math.floor(-min / scale + 0.5));
}

/** Sets one group of a grid from a scale and an integer zero. */
export function setGridGroup(grid: Grid, index: number, scale: number, zero: number, maxCode: number): void {
  grid.step[index] = scale;
  grid.lowest[index] = -zero * scale;
  grid.maxCode[index] = maxCode;
}
