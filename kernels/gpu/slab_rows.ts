/**
 * Splitting matrices by rows where they exceed the binding limit.
 *
 * @module
 */

/** Rows of a slab are a multiple of this: whole tiles, and outputs that start at a legal binding offset. */
const SLAB_ROWS = 64;

/**
 * Rows of a slab.
 *
 * @param multiple that they are of
 * @throws {RangeError} when so many rows exceed the binding limit
 */
export function slabRowsWithin(maxBindingBytes: number, rowBytes: number, multiple: number = SLAB_ROWS): number {
  const rows = Math.floor(maxBindingBytes / rowBytes / multiple) * multiple;
  if (rows === 0) {
    throw new RangeError(`binding limit is ${maxBindingBytes} bytes, must hold ${multiple} rows of ${rowBytes} bytes`);
  }
  return rows;
}
