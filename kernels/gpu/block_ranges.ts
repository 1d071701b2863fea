// Cutting a range into blocks.

/** First element and size of each block of `length` elements; the last one may be smaller. */
export function blockRanges(length: number, block: number): { first: number; size: number }[] {
  return Array.from({ length: Math.ceil(length / block) }, (_, i) => ({
    first: i * block,
    size: Math.min(block, length - i * block),
  }));
}
