// The element types of GGUF files that are read, and their decoding: blocks of channels with common scales.
// Layouts: ggml-common.h of https://github.com/ggml-org/ggml; f16 and all numbers little end first.
import { decodeQ2kBlock, Q2K_BYTES, Q2K_CHANNELS } from "../../quant/baselines/q2k.ts";
import { decodeWeights } from "./numbers.ts";

/** Decodes the block at `at` to `out` at `outAt`. */
export type DecodeBlock = (bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number) => void;

/** An element type. */
export interface GgufType {
  /** Name in llama.cpp. */
  readonly name: string;
  /** Channels of a block. */
  readonly channels: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /**
   * Decoding of a block; absent for the plain types.
   *
   * @ignore
   */
  readonly decode?: DecodeBlock;
}

/** Types by their number in the file. */
export const GGUF_TYPES: ReadonlyMap<number, GgufType> = new Map<number, GgufType>([
  [0, { name: "F32", channels: 1, bytes: 4 }],
  [1, { name: "F16", channels: 1, bytes: 2 }],
  [30, { name: "BF16", channels: 1, bytes: 2 }],
  [2, { name: "Q4_0", channels: 32, bytes: 18, decode: decodeQ4_0 }],
  [3, { name: "Q4_1", channels: 32, bytes: 20, decode: decodeQ4_1 }],
  [6, { name: "Q5_0", channels: 32, bytes: 22, decode: decodeQ5_0 }],
  [7, { name: "Q5_1", channels: 32, bytes: 24, decode: decodeQ5_1 }],
  [8, { name: "Q8_0", channels: 32, bytes: 34, decode: decodeQ8_0 }],
  [10, { name: "Q2_K", channels: Q2K_CHANNELS, bytes: Q2K_BYTES, decode: decodeQ2kBlock }],
  [11, { name: "Q3_K", channels: 256, bytes: 110, decode: decodeQ3_K }],
  [12, { name: "Q4_K", channels: 256, bytes: 144, decode: decodeKBlocks(false) }],
  [13, { name: "Q5_K", channels: 256, bytes: 176, decode: decodeKBlocks(true) }],
  [14, { name: "Q6_K", channels: 256, bytes: 210, decode: decodeQ6_K }],
  [15, { name: "Q8_K", channels: 256, bytes: 292, decode: decodeQ8_K }],
  [20, { name: "IQ4_NL", channels: 32, bytes: 18, decode: decodeIQ4_NL }],
  [23, { name: "IQ4_XS", channels: 256, bytes: 136, decode: decodeIQ4_XS }],
]);

/** Decodes a tensor's bytes to f32. */
export function decodeGguf(type: GgufType, bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const { name, channels, bytes: size, decode } = type;
  if (!decode) return decodeWeights(bytes, name as "F32" | "F16" | "BF16");
  const blocks = bytes.length / size;
  const out = new Float32Array(blocks * channels);
  for (let block = 0; block < blocks; block++) decode(bytes, block * size, out, block * channels);
  return out;
}

function float16(bytes: Uint8Array<ArrayBuffer>, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + at).getFloat16(0, true);
}

/** 32 codes of 4 bits in 16 bytes: channel l in the low and l + 16 in the high half of byte l. */
function nibble(bytes: Uint8Array<ArrayBuffer>, at: number, channel: number): number {
  return (bytes[at + (channel & 15)] >> (channel & 16 ? 4 : 0)) & 15;
}

/** The same with a fifth bit each, in the 4 bytes before. */
function fiveBits(bytes: Uint8Array<ArrayBuffer>, at: number, channel: number): number {
  return nibble(bytes, at + 4, channel) | (bit(bytes, at, channel) << 4);
}

/** Bit i of the bytes from `at` on. */
function bit(bytes: Uint8Array<ArrayBuffer>, at: number, i: number): number {
  return (bytes[at + (i >> 3)] >> (i & 7)) & 1;
}

function int8(bytes: Uint8Array<ArrayBuffer>, at: number): number {
  return (bytes[at] << 24) >> 24;
}

/** d, 32 x 4 bits; w = (code - 8) d */
function decodeQ4_0(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 32; l++) out[outAt + l] = (nibble(bytes, at + 2, l) - 8) * d;
}

/** d, m, 32 x 4 bits; w = code d + m */
function decodeQ4_1(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const [d, m] = [float16(bytes, at), float16(bytes, at + 2)];
  for (let l = 0; l < 32; l++) out[outAt + l] = nibble(bytes, at + 4, l) * d + m;
}

/** d, 32 fifth bits, 32 x 4 bits; w = (code - 16) d */
function decodeQ5_0(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 32; l++) out[outAt + l] = (fiveBits(bytes, at + 2, l) - 16) * d;
}

/** d, m, 32 fifth bits, 32 x 4 bits; w = code d + m */
function decodeQ5_1(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const [d, m] = [float16(bytes, at), float16(bytes, at + 2)];
  for (let l = 0; l < 32; l++) out[outAt + l] = fiveBits(bytes, at + 4, l) * d + m;
}

/** Values of the 4-bit codes of IQ4_NL and IQ4_XS. */
const IQ4_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** d, 32 x 4 bits; w = value of the code d */
function decodeIQ4_NL(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 32; l++) out[outAt + l] = IQ4_VALUES[nibble(bytes, at + 2, l)] * d;
}

/** d, 2 high bits of the scale codes of 8 blocks of 32, their 4 low bits, codes; w = value of the code (scaleCode - 32) d */
function decodeIQ4_XS(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let block = 0; block < 8; block++) {
    const low = (bytes[at + 4 + (block >> 1)] >> (4 * (block & 1))) & 15;
    const high = (bytes[at + 2 + (block >> 2)] >> (2 * (block & 3))) & 3;
    const scale = d * ((low | (high << 4)) - 32);
    const codes = at + 8 + 16 * block;
    for (let l = 0; l < 32; l++) out[outAt + 32 * block + l] = scale * IQ4_VALUES[nibble(bytes, codes, l)];
  }
}

/** d, 32 signed bytes; w = code d */
function decodeQ8_0(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 32; l++) out[outAt + l] = int8(bytes, at + 2 + l) * d;
}

/** Scale and min of a block of 32, of 8: d and dmin times their codes of 6 bits, packed in 12 bytes. */
function scaleAndMin(bytes: Uint8Array<ArrayBuffer>, at: number, block: number): [scale: number, min: number] {
  const packed = (i: number) => bytes[at + 4 + i];
  // The first four blocks have their codes whole; of the others the two high bits lie above those of the first four.
  const low = block < 4;
  const scaleCode = low ? packed(block) & 63 : (packed(block + 4) & 15) | ((packed(block - 4) >> 6) << 4);
  const minCode = low ? packed(block + 4) & 63 : (packed(block + 4) >> 4) | ((packed(block) >> 6) << 4);
  return [float16(bytes, at) * scaleCode, float16(bytes, at + 2) * minCode];
}

/**
 * d, dmin, scale and min codes, 128 bytes; w = scale code - min. With a fifth bit 32 bytes lie before the codes: that of
 * channel l of block b is bit b of byte l.
 */
function decodeKBlocks(hasFifth: boolean): DecodeBlock {
  return (bytes, at, out, outAt) => {
    for (let block = 0; block < 8; block++) {
      const [scale, min] = scaleAndMin(bytes, at, block);
      const [codes, shift] = [at + (hasFifth ? 48 : 16) + 32 * (block >> 1), 4 * (block & 1)];
      for (let l = 0; l < 32; l++) {
        const fifth = hasFifth ? (bytes[at + 16 + l] >> block) & 1 : 0;
        out[outAt + 32 * block + l] = scale * (((bytes[codes + l] >> shift) & 15) | (fifth << 4)) - min;
      }
    }
  };
}

/** 32 bytes of third bits, 64 bytes of 2 low bits, 12 bytes of 6-bit scale codes of 16 blocks of 16, d */
function decodeQ3_K(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at + 108);
  for (let channel = 0; channel < 256; channel++) {
    const [half, quarter, l, block] = [channel >> 7, (channel >> 5) & 3, channel & 31, channel >> 4];
    const low = (bytes[at + 32 + 32 * half + l] >> (2 * quarter)) & 3;
    const high = (bytes[at + l] >> (4 * half + quarter)) & 1;
    const scaleLow = (bytes[at + 96 + (block & 7)] >> (block < 8 ? 0 : 4)) & 15;
    const scaleHigh = (bytes[at + 104 + (block & 3)] >> (2 * (block >> 2))) & 3;
    out[outAt + channel] = d * ((scaleLow | (scaleHigh << 4)) - 32) * ((low | (high << 2)) - 4);
  }
}

/** d in f32, 256 signed bytes, sums that products use; w = code d */
function decodeQ8_K(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = new DataView(bytes.buffer, bytes.byteOffset + at).getFloat32(0, true);
  for (let channel = 0; channel < 256; channel++) out[outAt + channel] = int8(bytes, at + 4 + channel) * d;
}

/** 128 bytes of low 4 bits, 64 bytes of high 2 bits, signed scale codes of 16 blocks of 16, d; w = scaleCode d (code - 32) */
function decodeQ6_K(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at + 208);
  for (let channel = 0; channel < 256; channel++) {
    const [half, quarter, l] = [channel >> 7, (channel >> 5) & 3, channel & 31];
    const low = (bytes[at + 64 * half + 32 * (quarter & 1) + l] >> (4 * (quarter >> 1))) & 15;
    const high = (bytes[at + 128 + 32 * half + l] >> (2 * quarter)) & 3;
    const scaleCode = int8(bytes, at + 192 + (channel >> 4));
    out[outAt + channel] = d * scaleCode * ((low | (high << 4)) - 32);
  }
}
