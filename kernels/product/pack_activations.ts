// Packed activations: 16-bit block fixed point, the form in which the fused kernels read x.
import { GROUP_CHANNELS, halfBlocksPerRow } from "../../quant/format.ts";

/** 32-bit words of packed activations for one half block: bytes, scales and sums. */
const LANE_WORDS = 32 + 4 + 4;

/** Weight of the high byte; not 256, so that joining the bytes is a multiply-add and not a shift, see product/parts/decode.wgsl. */
const HIGH_UNIT = 255;

/** Largest stored integer: 127 * 255 + 127, the most that two signed bytes hold. */
const LARGEST = 32512;

/** Groups whose largest magnitude is below this are packed as zeros, so that 1 / step is finite. */
const LEAST = 2 ** -100;

/**
 * Packs x for the fused kernels; the CPU reference of fill_values.wgsl and quantize.wgsl, and of relay_groups.wgsl with
 * its 16128.
 *
 * Each group of 16 channels shares a step s = max |x| / 32512. Even channels are stored as round(x / s), odd channels
 * as round(x / 4s) (see product/parts/decode.wgsl), so the error is at most s / 2 or 2 s, on the device 2 % more, where
 * reciprocals are rounded: 2^-14 of the group's largest value at most, below what rounding that value to f16 costs.
 * What that means beside a massive activation is measured in docs/kernel_notes.md.
 * Groups below 2^-100 are stored as zeros. With H half blocks the planes are, each vec4<u32> [H]:
 *
 * | plane | content |
 * |---|---|
 * | 0..3 | high bytes of groups 0..3 of the half block; word j holds the channels 4i + j, byte i |
 * | 4..7 | low bytes, likewise; x = 255 high + low, both signed |
 * | 8 | f32: 512 s of the four groups |
 * | 9 | f32: sum of x over each group in units of s |
 *
 * A group that holds a NaN or an infinity has s = NaN, so that no output hides it.
 *
 * @param x f32 [channels]; padding channels are zero
 * @param most what the largest magnitude of a group becomes, in place of 32512
 */
export function packActivations(x: Float32Array, most = LARGEST): Uint32Array<ArrayBuffer> {
  const halfBlocks = halfBlocksPerRow(x.length);
  const words = new Uint32Array(halfBlocks * LANE_WORDS);
  const bytes = new Int8Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  for (let group = 0; group < halfBlocks * 4; group++) {
    const lane = Math.floor(group / 4);
    const step = groupStep(x, group, most);
    let sum = 0;
    for (let c = 0; c < GROUP_CHANNELS; c++) {
      const unit = c % 2 === 0 ? 1 : 4;
      const value = quantize(x[group * GROUP_CHANNELS + c] ?? 0, step * unit);
      const high = Math.round(value / HIGH_UNIT);
      const byte = (((group % 4) * halfBlocks + lane) * 4 + (c % 4)) * 4 + (c >> 2);
      bytes[byte] = high;
      bytes[byte + 64 * halfBlocks] = value - HIGH_UNIT * high;
      sum += value * unit;
    }
    floats[32 * halfBlocks + group] = Math.fround(512 * step);
    floats[36 * halfBlocks + group] = sum;
  }
  return words;
}

export interface UnpackedActivations {
  /** What a kernel multiplies, f64 [channels]. */
  readonly values: Float64Array;
  /** Step of the fixed point of each group. */
  readonly steps: Float64Array;
}

/** Unpacks activations; the tests' inverse of {@linkcode packActivations}. */
export function activationsOf(words: Uint32Array<ArrayBuffer>, channels: number): UnpackedActivations {
  const halfBlocks = words.length / LANE_WORDS;
  const bytes = new Int8Array(words.buffer, words.byteOffset);
  const floats = new Float32Array(words.buffer, words.byteOffset);
  const steps = Float64Array.from(floats.subarray(32 * halfBlocks, 36 * halfBlocks), (step512) => step512 / 512);
  const values = new Float64Array(channels);
  for (let channel = 0; channel < channels; channel++) {
    const group = Math.floor(channel / GROUP_CHANNELS);
    const c = channel % GROUP_CHANNELS;
    const byte = (((group % 4) * halfBlocks + Math.floor(group / 4)) * 4 + (c % 4)) * 4 + (c >> 2);
    const value = bytes[byte] * HIGH_UNIT + bytes[byte + 64 * halfBlocks];
    values[channel] = value * (c % 2 === 0 ? 1 : 4) * steps[group];
  }
  return { values, steps };
}

function groupStep(x: Float32Array, group: number, most: number): number {
  let largest = 0;
  for (const value of x.subarray(group * GROUP_CHANNELS, (group + 1) * GROUP_CHANNELS)) {
    if (!Number.isFinite(value)) return NaN;
    largest = Math.max(largest, Math.abs(value));
  }
  return largest < LEAST ? 0 : Math.fround(largest / most);
}

/** Rounds to nearest, ties to even, as WGSL's `round`; a zero or NaN step gives 0. */
function quantize(value: number, step: number): number {
  if (!(step > 0)) return 0;
  const ratio = value / step;
  const rounded = Math.round(ratio);
  const even = Math.abs(ratio % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  return Math.max(-LARGEST, Math.min(LARGEST, even));
}
