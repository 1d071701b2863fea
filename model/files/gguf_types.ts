/**
 * The element types of GGUF files that are read, and their decoding: blocks of channels with common scales.
 * Layouts: ggml-common.h of https://github.com/ggml-org/ggml; f16 and all numbers little end first.
 *
 * @module
 */
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
  /** Decoding of a block; absent for the plain types. */
  readonly decode?: DecodeBlock;
}

/** Types by their number in the file. */
export const GGUF_TYPES: ReadonlyMap<number, GgufType> = new Map<number, GgufType>([
  [0, { name: "F32", channels: 1, bytes: 4 }],
  [1, { name: "F16", channels: 1, bytes: 2 }],
  [30, { name: "BF16", channels: 1, bytes: 2 }],
  [2, { name: "Q4_0", channels: 32, bytes: 18, decode: decodeQ4_0 }],
  [3, { name: "Q4_1", channels: 32, bytes: 20, decode: decodeQ4_1 }],
  [8, { name: "Q8_0", channels: 32, bytes: 34, decode: decodeQ8_0 }],
  [10, { name: "Q2_K", channels: Q2K_CHANNELS, bytes: Q2K_BYTES, decode: decodeQ2kBlock }],
  [12, { name: "Q4_K", channels: 256, bytes: 144, decode: decodeQ4_K }],
  [14, { name: "Q6_K", channels: 256, bytes: 210, decode: decodeQ6_K }],
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

/** d, 16 bytes: channel l in the low and l + 16 in the high half of byte l; w = (code - 8) d */
function decodeQ4_0(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 16; l++) {
    const pair = bytes[at + 2 + l];
    out[outAt + l] = ((pair & 15) - 8) * d;
    out[outAt + l + 16] = ((pair >> 4) - 8) * d;
  }
}

/** d, m, 16 bytes as in Q4_0; w = code d + m */
function decodeQ4_1(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const [d, m] = [float16(bytes, at), float16(bytes, at + 2)];
  for (let l = 0; l < 16; l++) {
    const pair = bytes[at + 4 + l];
    out[outAt + l] = (pair & 15) * d + m;
    out[outAt + l + 16] = (pair >> 4) * d + m;
  }
}

/** d, 32 signed bytes; w = code d */
function decodeQ8_0(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at);
  for (let l = 0; l < 32; l++) out[outAt + l] = ((bytes[at + 2 + l] << 24) >> 24) * d;
}

/** d, dmin, 12 bytes of 6-bit scale and min codes of 8 blocks of 32, 128 bytes; w = scaleCode d code - minCode dmin */
function decodeQ4_K(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const [d, dmin] = [float16(bytes, at), float16(bytes, at + 2)];
  const packed = (i: number) => bytes[at + 4 + i];
  for (let block = 0; block < 8; block++) {
    // The first four blocks have their codes whole; of the others the two high bits lie above those of the first four.
    const low = block < 4;
    const scaleCode = low ? packed(block) & 63 : (packed(block + 4) & 15) | ((packed(block - 4) >> 6) << 4);
    const minCode = low ? packed(block + 4) & 63 : (packed(block + 4) >> 4) | ((packed(block) >> 6) << 4);
    const [scale, min] = [d * scaleCode, dmin * minCode];
    const [codes, shift] = [at + 16 + 32 * (block >> 1), 4 * (block & 1)];
    for (let l = 0; l < 32; l++) out[outAt + 32 * block + l] = scale * ((bytes[codes + l] >> shift) & 15) - min;
  }
}

/** 128 bytes of low 4 bits, 64 bytes of high 2 bits, signed scale codes of 16 blocks of 16, d; w = scaleCode d (code - 32) */
function decodeQ6_K(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const d = float16(bytes, at + 208);
  for (let channel = 0; channel < 256; channel++) {
    const [half, quarter, l] = [channel >> 7, (channel >> 5) & 3, channel & 31];
    const low = (bytes[at + 64 * half + 32 * (quarter & 1) + l] >> (4 * (quarter >> 1))) & 15;
    const high = (bytes[at + 128 + 32 * half + l] >> (2 * quarter)) & 3;
    const scaleCode = (bytes[at + 192 + (channel >> 4)] << 24) >> 24;
    out[outAt + channel] = d * scaleCode * ((low | (high << 4)) - 32);
  }
}
