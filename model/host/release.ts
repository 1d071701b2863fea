// Giving back memory whose last use is known. V8 frees it when it next collects garbage, which it does for what lies on
// its own heap; gigabytes of arrays outside it wait for that.

/** Frees the memory of an array, which is empty from then on, as are all views of the same memory; again does nothing. */
export function release(array: ArrayBufferView): void {
  releaseArrays({ array });
}

/** Frees the memory of all arrays of an object, as {@linkcode release} does. */
export function releaseArrays(object: object): void {
  for (const buffer of memoryOf(object)) buffer.transfer(0);
}

/**
 * Memory of an object's arrays, such as the planes of a stored matrix: but for what is shared, which may have other users
 * and cannot be freed but by the collector, and what is empty, which may be one for all.
 */
export function memoryOf(object: object): ArrayBuffer[] {
  const buffers = Object.values(object).map((value) => ArrayBuffer.isView(value) ? value.buffer : undefined);
  return [...new Set(buffers)].filter((buffer) =>
    buffer instanceof ArrayBuffer && buffer.byteLength > 0
  ) as ArrayBuffer[];
}
