// CPU reference of attention for one new token.
import type { AttentionShape } from "../../../kernels/attention/key_value_cache.ts";

/** Exact results of `decodeAttention` for one token: sums over all splits, already divided. */
export function decodeAttentionOnCpu(
  { heads, keyValueHeads, headSize }: AttentionShape,
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
): Float64Array {
  const tokens = keys.length / (keyValueHeads * headSize);
  const mixed = new Float64Array(heads * headSize);
  for (let head = 0; head < heads; head++) {
    const keyHead = Math.floor((head * keyValueHeads) / heads);
    const row = (token: number) => (token * keyValueHeads + keyHead) * headSize;
    const scores = Float64Array.from({ length: tokens }, (_, token) => {
      let dot = 0;
      for (let i = 0; i < headSize; i++) dot += q[head * headSize + i] * keys[row(token) + i];
      return dot / Math.sqrt(headSize);
    });
    const largest = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let token = 0; token < tokens; token++) {
      const weight = weights[token] / total;
      for (let i = 0; i < headSize; i++) mixed[head * headSize + i] += weight * values[row(token) + i];
    }
  }
  return mixed;
}
