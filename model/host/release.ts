// Giving back memory whose last use is known. V8 frees it when it next collects garbage, which it does for what lies on
// its own heap; gigabytes of arrays outside it wait for that.

/** Frees the memory of an array, which is empty from then on, as are all views of the same memory; again does nothing. */
export function release({ buffer }: ArrayBufferView): void {
  // Shared memory may have other users, and cannot be freed but by the collector.
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}
