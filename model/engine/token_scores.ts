/**
 * Scoring tokens on the device: the final norm, the head and the likelihood of what followed.
 *
 * @module
 */
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { logLikelihood } from "../../kernels/tokens/log_likelihood.ts";
import { createPrefillRange, setPrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import { type BufferOwner, withOwner } from "./buffer_owner.ts";
import type { EngineWeights } from "./engine_weights.ts";

/** What a model predicted after each of some tokens. */
export interface TokenScores {
  /** f32: natural logarithm of the target's probability. */
  readonly logLikelihoods: Float32Array;
  /** u32: the most likely token. */
  readonly best: Uint32Array;
}

/** Takes logits of some rows, from row `first` on. */
export type OnLogits = (logits: Float32Array, first: number) => void;

/** Scores rows of the residual stream. */
export interface TokenScorer {
  /**
   * Scores the first rows.
   *
   * @param hidden f32 [rows, hidden], before the final norm
   * @param targets the token that follows each
   * @param onLogits called with logits f32 [rows, vocabulary] and the index of the first row, part by part
   */
  score(hidden: GPUBuffer, targets: Uint32Array<ArrayBuffer>, onLogits?: OnLogits): Promise<TokenScores>;
  /** Frees its buffers. */
  destroy(): void;
}

/** Tokens whose logits are in memory at once. */
const LOGIT_TOKENS = 128;

/** Makes a scorer. */
export function createTokenScorer(gpu: Gpu, weights: EngineWeights): Promise<TokenScorer> {
  return withOwner(gpu, (owner) => createOwned(gpu, weights, owner));
}

async function createOwned(gpu: Gpu, weights: EngineWeights, owner: BufferOwner): Promise<TokenScorer> {
  const { hidden: width, vocabulary, normEpsilon } = weights.config;
  const make = (label: string, size: number) => owner.make(label, LOGIT_TOKENS * size);
  const rows = await make("rows", width);
  const normed = await make("normed", width);
  const logits = await make("logits", vocabulary);
  const expected = await make("targets", 1);
  const logLikelihoods = await make("log-likelihoods", 1);
  const best = await make("best tokens", 1);
  const range = await createPrefillRange(gpu, LOGIT_TOKENS);
  owner.own(range.buffer);
  const norm = { hidden: width, epsilon: normEpsilon, x: rows, weight: weights.finalNorm, y: normed };
  const dispatches: Dispatch[] = [
    await rmsNorm(gpu, range, norm),
    ...await gemm(gpu, weights.head, { range, x: normed, y: logits }),
    await logLikelihood(gpu, range, { vocabulary, logits, targets: expected, logLikelihoods, best }),
  ];
  return {
    async score(hidden, targets, onLogits) {
      const scores = { logLikelihoods: new Float32Array(targets.length), best: new Uint32Array(targets.length) };
      for (let first = 0; first < targets.length; first += LOGIT_TOKENS) {
        const part = targets.slice(first, first + LOGIT_TOKENS);
        gpu.copy(hidden, first * width * 4, rows, 0, part.length * width * 4);
        gpu.write(expected, part);
        setPrefillRange(gpu, range, part.length, 0);
        gpu.submit(dispatches);
        scores.logLikelihoods.set(await gpu.readF32(logLikelihoods, part.length), first);
        onLogits?.(await gpu.readF32(logits, part.length * vocabulary), first);
        scores.best.set(new Uint32Array(await gpu.read(best, part.length * 4)), first);
      }
      return scores;
    },
    destroy: owner.destroy,
  };
}
