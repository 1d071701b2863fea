// Decoding weights: the CPU twin of every dequantizing kernel.
import { BASE_ZEROS, GROUP_CHANNELS, groupsPerRow, REFINED_ZEROS, TILE_ROWS } from "./format.ts";
import type { PackedTensor } from "./packed_tensor.ts";
import { unpack } from "./pack.ts";
import type { UnpackedTensor } from "./unpacked_tensor.ts";

/**
 * Decodes a packed matrix.
 *
 * @returns f32 [rows, channels], padding removed, outlier residuals added. The decoded grid value is exact in f32;
 * adding an outlier's residual rounds once.
 */
export function dequantize(tensor: PackedTensor): Float32Array<ArrayBuffer> {
  return dequantizeCodes(unpack(tensor));
}

/** As {@linkcode dequantize}, from unpacked codes. */
export function dequantizeCodes(tensor: UnpackedTensor): Float32Array<ArrayBuffer> {
  const { rows, channels, codes, scaleCodes, zeroCodes, refined, tileScale, outliers } = tensor;
  const groups = groupsPerRow(channels);
  const weights = new Float32Array(rows * channels);
  for (let row = 0; row < rows; row++) {
    const tileRow = Math.floor(row / TILE_ROWS) * groups;
    for (let channel = 0; channel < channels; channel++) {
      const group = Math.floor(channel / GROUP_CHANNELS);
      const index = row * groups + group;
      const scale = scaleCodes[index] * tileScale[tileRow + group];
      const code = codes[row * groups * GROUP_CHANNELS + channel];
      weights[row * channels + channel] = refined[index] === 1
        ? (code / 4 - REFINED_ZEROS[zeroCodes[index]]) * scale
        : (code - BASE_ZEROS[zeroCodes[index]]) * scale;
    }
    for (let i = outliers.start[row]; i < outliers.start[row + 1]; i++) {
      weights[row * channels + outliers.channel[i]] += outliers.residual[i];
    }
  }
  return weights;
}
