/**
 * Scoring tokens on the device: the final norm, the head and the likelihood of what followed.
 *
 * @module
 */
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { gemm } from "../../kernels/product/linear.ts";
import { logLikelihood } from "../../kernels/tokens/log_likelihood.ts";
import { createPrefillRange, type PrefillRange, setPrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { rmsNorm } from "../../kernels/tokens/rms_norm.ts";
import type { EngineWeights } from "./engine_weights.ts";

/** What a model predicted after each of some tokens. */
export interface TokenScores {
  /** f32: natural logarithm of the target's probability. */
  readonly logLikelihoods: Float32Array<ArrayBuffer>;
  /** u32: the most likely token. */
  readonly best: Uint32Array<ArrayBuffer>;
}

/** Takes logits of some rows, from row `first` on. */
export type OnLogits = (logits: Float32Array, first: number) => void;

/** Finds the likelihood of tokens in logits that are on the device: of the first of its rows one each. */
export type LikelihoodReader = (targets: Uint32Array<ArrayBuffer>) => Promise<TokenScores>;

/**
 * Makes a reader.
 *
 * @param range of the most targets at once
 * @param logits f32 [tokens, vocabulary]
 */
export async function createLikelihoodReader(
  gpu: Gpu,
  scope: BufferScope,
  range: PrefillRange,
  vocabulary: number,
  logits: GPUBuffer,
): Promise<LikelihoodReader> {
  const words = (label: string) => scope.storage(label, 4 * range.maxTokens);
  const expected = await words("targets");
  const logLikelihoods = await words("log-likelihoods");
  const best = await words("best tokens");
  const dispatch = await logLikelihood(gpu, range, { vocabulary, logits, targets: expected, logLikelihoods, best });
  return async (targets) => {
    gpu.write(expected, targets);
    setPrefillRange(gpu, range, targets.length, 0);
    gpu.submit([dispatch]);
    return {
      logLikelihoods: await gpu.readF32(logLikelihoods, targets.length),
      best: new Uint32Array(await gpu.read(best, targets.length * 4)),
    };
  };
}

/** Scores rows of the residual stream. Dispose it to free its buffers. */
export interface TokenScorer extends Disposable {
  /**
   * Scores the first rows.
   *
   * @param hidden f32 [rows, hidden], before the final norm
   * @param targets the token that follows each
   * @param onLogits called with logits f32 [rows, vocabulary] and the index of the first row, part by part
   */
  score(hidden: GPUBuffer, targets: Uint32Array<ArrayBuffer>, onLogits?: OnLogits): Promise<TokenScores>;
  /** Logits after some rows, f32 [vocabulary] each. */
  logits(hidden: GPUBuffer, rows: readonly number[]): Promise<Float32Array<ArrayBuffer>[]>;
}

/** Tokens whose logits are in memory at once. */
const LOGIT_TOKENS = 128;

/** Makes a scorer. */
export function createTokenScorer(gpu: Gpu, weights: EngineWeights): Promise<TokenScorer> {
  const { hidden: width, vocabulary, normEpsilon: epsilon } = weights.config;
  return allOrNone(gpu, async (scope) => {
    const make = (label: string, size: number) => scope.storage(label, 4 * LOGIT_TOKENS * size);
    const rows = await make("rows", width);
    const normed = await make("normed", width);
    const logits = await make("logits", vocabulary);
    const range = await createPrefillRange(gpu, LOGIT_TOKENS);
    scope.own(range.buffer);
    const head = [
      await rmsNorm(gpu, range, { hidden: width, epsilon, x: rows, weight: weights.finalNorm, y: normed }),
      ...await gemm(gpu, weights.head, range, normed, logits),
    ];
    const likelihoods = await createLikelihoodReader(gpu, scope, range, vocabulary, logits);
    const submitHead = (hidden: GPUBuffer, first: number, count: number) => {
      gpu.copy(hidden, first * width * 4, rows, 0, count * width * 4);
      setPrefillRange(gpu, range, count, 0);
      gpu.submit(head);
    };
    return {
      async score(hidden, targets, onLogits) {
        const scores = { logLikelihoods: new Float32Array(targets.length), best: new Uint32Array(targets.length) };
        for (let first = 0; first < targets.length; first += LOGIT_TOKENS) {
          const part = targets.slice(first, first + LOGIT_TOKENS);
          submitHead(hidden, first, part.length);
          const { logLikelihoods, best } = await likelihoods(part);
          scores.logLikelihoods.set(logLikelihoods, first);
          scores.best.set(best, first);
          onLogits?.(await gpu.readF32(logits, part.length * vocabulary), first);
        }
        return scores;
      },
      async logits(hidden, wanted) {
        const rowBytes = 4 * vocabulary;
        const mostRows = hidden.size / 4 / width;
        const found: Float32Array<ArrayBuffer>[] = [];
        let first = -LOGIT_TOKENS;
        for (const row of wanted) {
          if (row < first || row >= first + LOGIT_TOKENS) {
            first = row;
            submitHead(hidden, first, Math.min(LOGIT_TOKENS, mostRows - first));
          }
          found.push(new Float32Array(await gpu.read(logits, rowBytes, (row - first) * rowBytes)));
        }
        return found;
      },
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}
