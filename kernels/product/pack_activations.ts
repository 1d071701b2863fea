// Packed activations: block fixed point of 16 or 8 bits, the form in which the fused kernels read x.
import { GROUP_CHANNELS, halfBlocksPerRow } from "../../quant/format.ts";

/** 32-bit words of packed activations for one half block: bytes, scales and sums. */
const LANE_WORDS = 32 + 4 + 4;

/** Bits of an activation that packed weights are multiplied with. */
export type ActivationBits = 8 | 16;

/** How many bytes hold an integer. */
interface FixedPoint {
  /** What the largest magnitude of a group becomes, in steps. */
  readonly largest: number;
  /** Weight of the high byte. */
  readonly highUnit: number;
  /** Steps that integers of even channels count in; those of odd ones count in 4. */
  readonly evenUnit: number;
}

/**
 * A high byte weighs 255 and not 256, so that joining the bytes is a multiply-add and not a shift, see
 * product/parts/decode.wgsl; two signed bytes hold 127 * 255 + 127, one holds 127, which counts in 4 steps.
 */
const FIXED_POINTS: Readonly<Record<ActivationBits, FixedPoint>> = {
  16: { largest: 32512, highUnit: 255, evenUnit: 1 },
  8: { largest: 508, highUnit: 1, evenUnit: 4 },
};

/** Bytes that a group takes of workgroup memory: its integers, its step and its sum. */
export function cellBytes(activationBits: ActivationBits): number {
  return GROUP_CHANNELS * activationBits / 8 + 8;
}

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
 * Of 8 bits s = max |x| / 508 and all channels are stored as round(x / 4s), so the error is at most 2 s, 2^-8 of the
 * group's largest value, which itself is exact. Groups below 2^-100 are stored as zeros. With H half blocks the planes are, each vec4<u32> [H]:
 *
 * | plane | content |
 * |---|---|
 * | 0..3 | high bytes of groups 0..3 of the half block; word j holds the channels 4i + j, byte i |
 * | 4..7 | low bytes, likewise; x = 255 high + low, both signed; of 8 bits x = high, and these are zeros |
 * | 8 | f32: 512 s of the four groups |
 * | 9 | f32: sum of x over each group in units of s |
 *
 * A group that holds a NaN or an infinity has s = NaN, so that no output hides it.
 *
 * @param x f32 [channels]; padding channels are zero
 * @param most what the largest magnitude of a group becomes, in place of 32512 or 508
 */
export function packActivations(
  x: Float32Array,
  activationBits: ActivationBits = 16,
  most = FIXED_POINTS[activationBits].largest,
): Uint32Array<ArrayBuffer> {
  const { highUnit, evenUnit } = FIXED_POINTS[activationBits];
  const halfBlocks = halfBlocksPerRow(x.length);
  const words = new Uint32Array(halfBlocks * LANE_WORDS);
  const bytes = new Int8Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  for (let group = 0; group < halfBlocks * 4; group++) {
    const lane = Math.floor(group / 4);
    const step = groupStep(x, group, most);
    let sum = 0;
    for (let c = 0; c < GROUP_CHANNELS; c++) {
      const unit = c % 2 === 0 ? evenUnit : 4;
      const value = quantize(x[group * GROUP_CHANNELS + c] ?? 0, step * unit, most);
      const high = Math.round(value / highUnit);
      const byte = (((group % 4) * halfBlocks + lane) * 4 + (c % 4)) * 4 + (c >> 2);
      bytes[byte] = high;
      bytes[byte + 64 * halfBlocks] = value - highUnit * high;
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
export function activationsOf(
  words: Uint32Array<ArrayBuffer>,
  channels: number,
  activationBits: ActivationBits = 16,
): UnpackedActivations {
  const { highUnit, evenUnit } = FIXED_POINTS[activationBits];
  const halfBlocks = words.length / LANE_WORDS;
  const bytes = new Int8Array(words.buffer, words.byteOffset);
  const floats = new Float32Array(words.buffer, words.byteOffset);
  const steps = Float64Array.from(floats.subarray(32 * halfBlocks, 36 * halfBlocks), (step512) => step512 / 512);
  const values = new Float64Array(channels);
  for (let channel = 0; channel < channels; channel++) {
    const group = Math.floor(channel / GROUP_CHANNELS);
    const c = channel % GROUP_CHANNELS;
    const byte = (((group % 4) * halfBlocks + Math.floor(group / 4)) * 4 + (c % 4)) * 4 + (c >> 2);
    const value = bytes[byte] * highUnit + bytes[byte + 64 * halfBlocks];
    values[channel] = value * (c % 2 === 0 ? evenUnit : 4) * steps[group];
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
function quantize(value: number, step: number, most: number): number {
  if (!(step > 0)) return 0;
  const ratio = value / step;
  const rounded = Math.round(ratio);
  const even = Math.abs(ratio % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  return Math.max(-most, Math.min(most, even));
}
