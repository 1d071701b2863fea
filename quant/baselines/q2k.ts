// The layout of llama.cpp's Q2_K, the most used 2-bit format: super-blocks of 256 consecutive channels of one row.
//
//     scales  16 bytes  of each of 16 blocks of 16: scale code (low 4 bits) and min code (high 4 bits)
//     codes   64 bytes  2 bits x 256: byte 32 h + l holds the channels 128 h + l + {0, 32, 64, 96}, lowest bits first
//     d       f16       scale = scale code * d
//     dmin    f16       min = min code * dmin
//     ------------------------------------------------------------------- 84 bytes = 2.625 bits a weight
//
//     w = scale * code - min

export const Q2K_CHANNELS = 256;

export const Q2K_BYTES = 84;

/** Channels of a block, which has one scale and one min. */
export const Q2K_BLOCK = 16;

export const Q2K_BLOCKS = 16;

const CODES_AT = 16;
const D_AT = 80;
const DMIN_AT = 82;

/** What a super-block stores, one array element a code. */
export interface Q2kBlock {
  /** f16 scale of the scale codes. */
  readonly d: number;
  /** f16 scale of the min codes. */
  readonly dmin: number;
  /** [16]: 4 bits each. */
  readonly scaleCodes: ArrayLike<number>;
  /** [16]: 4 bits each. */
  readonly minCodes: ArrayLike<number>;
  /** [256]: 2 bits each. */
  readonly codes: ArrayLike<number>;
}

/** Byte and shift of a channel's code. */
function codePlace(channel: number): readonly [byte: number, shift: number] {
  return [CODES_AT + 32 * (channel >> 7) + (channel & 31), 2 * ((channel >> 5) & 3)];
}

/** Writes a super-block's bytes at `at`. */
export function packQ2kBlock(block: Q2kBlock, bytes: Uint8Array<ArrayBuffer>, at: number): void {
  for (let i = 0; i < Q2K_BLOCKS; i++) bytes[at + i] = block.scaleCodes[i] | (block.minCodes[i] << 4);
  bytes.fill(0, at + CODES_AT, at + D_AT);
  for (let channel = 0; channel < Q2K_CHANNELS; channel++) {
    const [byte, shift] = codePlace(channel);
    bytes[at + byte] |= block.codes[channel] << shift;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setFloat16(at + D_AT, block.d, true);
  view.setFloat16(at + DMIN_AT, block.dmin, true);
}

/** Decodes the super-block at `at` to f32 [256] at `outAt`. */
export function decodeQ2kBlock(bytes: Uint8Array<ArrayBuffer>, at: number, out: Float32Array, outAt: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const d = view.getFloat16(at + D_AT, true);
  const dmin = view.getFloat16(at + DMIN_AT, true);
  for (let channel = 0; channel < Q2K_CHANNELS; channel++) {
    const codes = bytes[at + (channel >> 4)];
    const [byte, shift] = codePlace(channel);
    out[outAt + channel] = d * (codes & 15) * ((bytes[at + byte] >> shift) & 3) - dmin * (codes >> 4);
  }
}
