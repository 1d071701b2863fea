// Packing numbers of a few bits each one after the other, little end first.

/**
 * Bytes of a stream, the last one padded with zeros.
 *
 * @param widths bits of the first elements, at most 8 each, which repeat
 * @throws {RangeError} when a value needs more bits than it has
 */
export function packBits(values: Uint8Array, widths: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(bytesOf(values.length, widths));
  let [word, bits, at] = [0, 0, 0];
  for (let i = 0, k = 0; i < values.length; i++, k = k + 1 === widths.length ? 0 : k + 1) {
    if (values[i] >>> widths[k] !== 0) throw new RangeError(`value ${i} is ${values[i]}, must fit ${widths[k]} bits`);
    word |= values[i] << bits;
    bits += widths[k];
    if (bits < 8) continue;
    bytes[at++] = word;
    word >>= 8;
    bits -= 8;
  }
  if (bits > 0) bytes[at] = word;
  return bytes;
}

function bytesOf(count: number, widths: ArrayLike<number>): number {
  let bits = 0;
  for (let k = 0; k < widths.length; k++) bits += widths[k] * Math.ceil(Math.max(0, count - k) / widths.length);
  return Math.ceil(bits / 8);
}

/** The inverse of {@linkcode packBits}. */
export function unpackBits(bytes: Uint8Array, count: number, widths: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const values = new Uint8Array(count);
  let [word, bits, at] = [0, 0, 0];
  for (let i = 0, k = 0; i < count; i++, k = k + 1 === widths.length ? 0 : k + 1) {
    if (bits < widths[k]) {
      word |= bytes[at++] << bits;
      bits += 8;
    }
    values[i] = word & ((1 << widths[k]) - 1);
    word >>= widths[k];
    bits -= widths[k];
  }
  return values;
}
