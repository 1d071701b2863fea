// Finding the scales and zeros of a strip layout.
import { GROUP_CHANNELS, TILE_ROWS } from "../format.ts";
import { MAX_F16 } from "../float16.ts";
import { nearestCode } from "../grid.ts";
import { rangeOf } from "../probe.ts";
import {
  fourBitStrips,
  scaleCodeBits,
  stripCount,
  type StripGroups,
  stripGroups,
  type StripLayout,
} from "./strip_layout.ts";
import type { StripScales } from "./strip_tensor.ts";

/** How scales are found. */
export type ScaleSearch = "minmax" | "weighted_error";

/** Clip factors that the weighted search tries: the range is shrunk to this share. */
const CLIPS: readonly number[] = Array.from({ length: 13 }, (_, i) => 1 - 0.05 * i);

/**
 * Finds scales and zeros of every group.
 *
 * @param weights f32 [rows, channels]
 * @param importance f64 [channels]: weight of a channel's squared error (the Hessian's diagonal); all 1 without one
 * @param fourBit [strips]: 1 for each 4-bit strip; by default those that {@linkcode pickStrips} picks by these rows
 * @throws {RangeError} when a group's range needs a scale above the largest f16
 */
export function fitStripScales(
  layout: StripLayout,
  weights: Float32Array,
  rows: number,
  importance: Float64Array,
  search: ScaleSearch,
  fourBit: Uint8Array<ArrayBuffer> = pickStrips(layout, weights, rows, importance),
): { scales: StripScales; grouping: StripGroups } {
  const channels = importance.length;
  const grouping = stripGroups(layout, channels, fourBit);
  const { groupOf, ordinary, groups } = grouping;
  const members = membersOf(groupOf, groups);
  const target = new Float64Array(rows * groups);
  const zeros = new Uint8Array(rows * groups);
  const clips = search === "minmax" ? [1] : CLIPS;
  const maxCodeOf = (group: number) => (group < ordinary ? 1 << layout.bits : 16) - 1;
  // The weights of each group take its place here, row after row.
  const scratch = members.map(({ length }) => new Float64Array(length));
  const groupWeights = (row: number, group: number) => gather(weights, row * channels, members[group], scratch[group]);
  const groupImportance = members.map((channels) => Float64Array.from(channels, (channel) => importance[channel]));
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const found = fitGroup(groupWeights(row, group), groupImportance[group], maxCodeOf(group), clips);
      target[row * groups + group] = found.scale;
      zeros[row * groups + group] = found.zero;
    }
  }
  if (layout.scale === "f16") {
    const scales = toF16(target);
    return { grouping, scales: { ...NO_SCALES, fourBit, zeros, scales } };
  }
  const second = fitTiles(layout, target, rows, grouping);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < ordinary; group++) {
      // The stored scale differs from the wanted one, so the zero is chosen again.
      const scale = second.scaleAt(row, group);
      zeros[row * groups + group] = bestZero(groupWeights(row, group), groupImportance[group], scale, maxCodeOf(group));
    }
  }
  const wide = new Float64Array(rows * (groups - ordinary));
  for (let i = 0; i < wide.length; i++) {
    wide[i] = target[Math.floor(i / (groups - ordinary)) * groups + ordinary + (i % (groups - ordinary))];
  }
  return { grouping, scales: { fourBit, zeros, scales: toF16(wide), ...second.stored } };
}

function membersOf(groupOf: Uint16Array, groups: number): Uint16Array[] {
  const members = Array.from({ length: groups }, () => [] as number[]);
  groupOf.forEach((group, channel) => members[group].push(channel));
  return members.map((channels) => Uint16Array.from(channels));
}

function gather(weights: Float32Array, start: number, channels: Uint16Array, to: Float64Array): Float64Array {
  for (let i = 0; i < channels.length; i++) to[i] = weights[start + channels[i]];
  return to;
}

const NO_SCALES = {
  scaleCodes: new Uint8Array(0),
  tileScale: new Float16Array(0),
  tileOffset: new Uint8Array(0),
};

/** A scale rounded to f16. @throws {RangeError} beyond f16's range */
function scaleToF16(scale: number): number {
  if (scale > MAX_F16) throw new RangeError(`a group needs the scale ${scale}, must be at most ${MAX_F16}`);
  return Math.f16round(scale);
}

function toF16(scales: Float64Array): Float16Array<ArrayBuffer> {
  return Float16Array.from(scales, scaleToF16);
}

/**
 * Picks the 4-bit strips: those with the largest sum over rows of range² x importance.
 * Choice: the paper's figure says "range x Hessian" for whole column strips; see quant/refine_pick.ts.
 */
export function pickStrips(
  layout: StripLayout,
  weights: Float32Array,
  rows: number,
  importance: Float64Array,
): Uint8Array<ArrayBuffer> {
  const channels = importance.length;
  const picked = new Uint8Array(stripCount(channels));
  const wanted = fourBitStrips(layout, channels);
  if (wanted === 0) return picked;
  const scores = Array.from(picked, (_, strip) => {
    const start = strip * GROUP_CHANNELS;
    const end = Math.min(channels, start + GROUP_CHANNELS);
    let total = 0;
    for (let row = 0; row < rows; row++) {
      total += rangeOf(weights.subarray(row * channels + start, row * channels + end)) ** 2;
    }
    return total * importance.subarray(start, end).reduce((sum, value) => sum + value, 0);
  });
  const order = scores.map((_, strip) => strip).sort((a, b) => scores[b] - scores[a] || a - b);
  for (const strip of order.slice(0, wanted)) picked[strip] = 1;
  return picked;
}

interface GroupFit {
  readonly scale: number;
  readonly zero: number;
}

function fitGroup(
  weights: Float64Array,
  importance: Float64Array,
  maxCode: number,
  clips: readonly number[],
): GroupFit {
  let [min, max] = [0, 0];
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] < min) min = weights[i];
    if (weights[i] > max) max = weights[i];
  }
  let best: GroupFit & { error: number } = { scale: 0, zero: 0, error: Infinity };
  for (const clip of clips) {
    const [low, high] = [clip * min, clip * max];
    const scale = scaleToF16((high - low) / maxCode);
    // The code that means 0.
    const zero = scale === 0 ? 0 : Math.min(maxCode, Math.floor(-low / scale + 0.5));
    const error = clips.length === 1 ? 0 : weightedError(weights, importance, scale, zero, maxCode);
    if (error < best.error) best = { scale, zero, error };
  }
  return best;
}

function bestZero(weights: Float64Array, importance: Float64Array, scale: number, maxCode: number): number {
  let best = 0;
  let bestError = Infinity;
  for (let zero = 0; zero <= maxCode; zero++) {
    const error = weightedError(weights, importance, scale, zero, maxCode);
    if (error < bestError) [best, bestError] = [zero, error];
  }
  return best;
}

function weightedError(
  weights: Float64Array,
  importance: Float64Array,
  scale: number,
  zero: number,
  maxCode: number,
): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const code = nearestCode(weights[i], -zero * scale, scale, maxCode);
    sum += importance[i] * (weights[i] - (code - zero) * scale) ** 2;
  }
  return sum;
}

/** Second-order quantization: codes on a common d (and offset) for the 16 scales of each tile. */
function fitTiles(layout: StripLayout, target: Float64Array, rows: number, { ordinary, groups }: StripGroups) {
  const offsetBits = layout.scale === "f16" ? 0 : layout.scale.offsetBits;
  const tiles = Math.ceil(rows / TILE_ROWS);
  const scaleCodes = new Uint8Array(rows * ordinary);
  const tileScale = new Float16Array(tiles * ordinary);
  const tileOffset = new Uint8Array(offsetBits === 0 ? 0 : tiles * ordinary);
  for (let tile = 0; tile < tiles; tile++) {
    const last = Math.min(rows, (tile + 1) * TILE_ROWS);
    for (let group = 0; group < ordinary; group++) {
      const maxCode = (1 << scaleCodeBits(layout, group)) - 1;
      const scales: number[] = [];
      for (let row = tile * TILE_ROWS; row < last; row++) scales.push(target[row * groups + group]);
      const max = Math.max(...scales);
      const min = Math.min(...scales);
      const at = tile * ordinary + group;
      const maxOffset = (1 << offsetBits) - 1;
      const step = offsetBits === 0 ? max / maxCode : Math.max((max - min) / maxCode, max / (maxCode + maxOffset));
      tileScale[at] = scaleToF16(step);
      const d = tileScale[at];
      const offset = d === 0 || offsetBits === 0 ? 0 : Math.min(maxOffset, Math.floor(min / d + 0.5));
      if (offsetBits > 0) tileOffset[at] = offset;
      scales.forEach((scale, i) => {
        const row = tile * TILE_ROWS + i;
        scaleCodes[row * ordinary + group] = nearestCode(scale, offset * d, d, maxCode);
      });
    }
  }
  const scaleAt = (row: number, group: number) => {
    const at = Math.floor(row / TILE_ROWS) * ordinary + group;
    return (scaleCodes[row * ordinary + group] + (tileOffset[at] ?? 0)) * tileScale[at];
  };
  return { stored: { scaleCodes, tileScale, tileOffset }, scaleAt };
}
