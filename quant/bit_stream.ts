/**
 * Packing numbers of a few bits each one after the other, little end first.
 *
 * @module
 */

/** Bits of element i of a stream. */
export type WidthOf = (index: number) => number;

/** Bytes of a stream, the last one padded with zeros. @throws {RangeError} when a value needs more bits than it has */
export function packBits(values: Uint8Array, widthOf: WidthOf): Uint8Array<ArrayBuffer> {
  let bits = 0;
  for (let i = 0; i < values.length; i++) bits += widthOf(i);
  const bytes = new Uint8Array(Math.ceil(bits / 8));
  let at = 0;
  for (let i = 0; i < values.length; i++) {
    const width = widthOf(i);
    if (values[i] >>> width !== 0) throw new RangeError(`value ${i} is ${values[i]}, must fit ${width} bits`);
    // A value of at most 8 bits touches at most two bytes.
    const shifted = values[i] << (at % 8);
    bytes[at >> 3] |= shifted;
    if (shifted > 255) bytes[(at >> 3) + 1] |= shifted >> 8;
    at += width;
  }
  return bytes;
}

/** The inverse of {@linkcode packBits}. */
export function unpackBits(bytes: Uint8Array, count: number, widthOf: WidthOf): Uint8Array<ArrayBuffer> {
  const values = new Uint8Array(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const width = widthOf(i);
    const word = bytes[at >> 3] | ((bytes[(at >> 3) + 1] ?? 0) << 8);
    values[i] = (word >> (at % 8)) & ((1 << width) - 1);
    at += width;
  }
  return values;
}
