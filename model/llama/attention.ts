// Causal attention with grouped query heads, on the CPU.
import type { ModelConfig } from "./config.ts";
import { exponentials, type MatMul, type MatrixView, transpose } from "./matmul.ts";

/** Keys (rotated) and values of one sequence in one layer: f32 [length, keyValueHeads * headSize] each. */
export interface KeyValues {
  readonly length: number;
  /** f32 [length, keyValueHeads * headSize], rotated. */
  readonly keys: Float32Array;
  /** f32 [length, keyValueHeads * headSize]. */
  readonly values: Float32Array;
}

/** Queries of the same keys that are multiplied at once; more waste work above the diagonal, fewer waste packing. */
const QUERY_TILE = 105;

/**
 * out = softmax(q kᵀ / sqrt(headSize), causal) v for one sequence. The queries are the last tokens of the sequence:
 * query t sees the keys 0 .. length - queries + t, or with a sliding window the last `slidingWindow` of these.
 *
 * @param q f32 [queries, heads * headSize], rotated
 * @param out f32 [queries, heads * headSize]
 */
export function attend(
  config: ModelConfig,
  matmul: MatMul,
  q: Float32Array,
  { length, keys, values }: KeyValues,
  out: Float32Array,
): void {
  const { heads, keyValueHeads, headSize, slidingWindow = Infinity } = config;
  const queries = q.length / (heads * headSize);
  const view = (data: Float32Array, row: number, rows: number, head: number, heads: number): MatrixView => ({
    data,
    offset: (row * heads + head) * headSize,
    rows,
    columns: headSize,
    rowStride: heads * headSize,
    columnStride: 1,
  });
  const scores = new Float32Array(Math.min(QUERY_TILE, queries) * length);
  for (let first = 0; first < queries; first += QUERY_TILE) {
    const count = Math.min(QUERY_TILE, queries - first);
    const seen = length - queries + first + count;
    for (let head = 0; head < heads; head++) {
      const keyHead = Math.floor(head / (heads / keyValueHeads));
      const tile = { data: scores, offset: 0, rows: count, columns: seen, rowStride: seen, columnStride: 1 };
      matmul(view(q, first, count, head, heads), view(keys, 0, seen, keyHead, keyValueHeads), tile);
      for (let t = 0; t < count; t++) {
        const end = seen - count + t + 1;
        const row = scores.subarray(t * seen, (t + 1) * seen);
        maskedSoftmax(matmul, row, Math.max(0, end - slidingWindow), end, 1 / Math.sqrt(headSize));
      }
      matmul(tile, transpose(view(values, 0, seen, keyHead, keyValueHeads)), view(out, first, count, head, heads));
    }
  }
}

/** Softmax of scale * row over its elements first .. end - 1, in place; the others become 0. */
function maskedSoftmax(matmul: MatMul, row: Float32Array, first: number, end: number, scale: number): void {
  let max = -Infinity;
  for (let i = first; i < end; i++) max = Math.max(max, row[i]);
  const values = exponentials(matmul, row.subarray(first, end), max, scale);
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    row[first + i] = values[i];
    sum += values[i];
  }
  for (let i = first; i < end; i++) row[i] /= sum;
  row.fill(0, 0, first);
  row.fill(0, end);
}
