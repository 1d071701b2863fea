// CPU reference of the kernels that draw a token, in f64.
import type { Sampling } from "../../../kernels/tokens/sampler.ts";

/** Probability of each token that `sample` may draw, 0 for the others. The largest logit must be finite. */
export function samplingProbabilities(logits: Float32Array, { temperature, topP, topK }: Sampling): Float64Array {
  const largest = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const weights = Float64Array.from(logits, (value) => Math.exp((value - largest) / temperature));
  const order = Array.from(weights.keys()).sort((a, b) =>
    Number(logits[b] > logits[a]) - Number(logits[b] < logits[a])
  );
  const lowestOfTop = topK > 0 && topK < order.length ? logits[order[topK - 1]] : -Infinity;
  const inTopK = order.filter((token) => logits[token] >= lowestOfTop);
  const total = inTopK.reduce((sum, token) => sum + weights[token], 0);
  let reached = 0;
  let lowest = lowestOfTop;
  for (const token of inTopK) {
    reached += weights[token];
    if (topP < 1 && reached >= topP * total) {
      lowest = logits[token];
      break;
    }
  }
  const kept = inTopK.filter((token) => logits[token] >= lowest);
  const mass = kept.reduce((sum, token) => sum + weights[token], 0);
  const probabilities = new Float64Array(logits.length);
  for (const token of kept) probabilities[token] = weights[token] / mass;
  return probabilities;
}

/**
 * The token that `sample` draws after a position: of those it may draw, the one that arrives first where each arrives
 * after an exponential time of its probability's rate.
 *
 * @returns the token, and the ratio of the second time to the first: where it is hardly above 1, f32 may draw the second
 */
export function drawOnCpu(
  logits: Float32Array,
  sampling: Sampling,
  position: number,
): { readonly token: number; readonly lead: number } {
  const seed = hash(hash(sampling.seed) ^ position);
  const times = samplingProbabilities(logits, sampling)
    .map((probability, token) => -Math.log1p(-(hash(seed ^ token) + 0.5) / 2 ** 32) / probability);
  const token = times.reduce((best, time, i) => time < times[best] ? i : best, 0);
  const second = times.reduce((least, time, i) => i === token ? least : Math.min(least, time), Infinity);
  return { token, lead: second / times[token] };
}

/** PCG's output permutation over one step of its generator, as in score_drawn.wgsl. */
function hash(value: number): number {
  const state = (Math.imul(value, 747796405) + 2891336453) >>> 0;
  const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0;
  return ((word >>> 22) ^ word) >>> 0;
}
