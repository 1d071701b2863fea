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
 * @throws {RangeError} when 64 rows exceed the binding limit
 */
export function slabRowsWithin(maxBindingBytes: number, rowBytes: number): number {
  const rows = Math.floor(maxBindingBytes / rowBytes / SLAB_ROWS) * SLAB_ROWS;
  if (rows === 0) {
    throw new RangeError(`binding limit is ${maxBindingBytes} bytes, must hold ${SLAB_ROWS} rows of ${rowBytes} bytes`);
  }
  return rows;
}
