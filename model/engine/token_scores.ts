// Scoring tokens on the device: the final norm, the head and the likelihood of what followed.
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { logLikelihood } from "../../kernels/tokens/log_likelihood.ts";
import { createTokenRange, setTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { logitDispatches } from "./layer_operations.ts";

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
  range: TokenRange,
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
    setTokenRange(gpu, range, targets.length, 0);
    gpu.submit([dispatch]);
    return {
      logLikelihoods: await gpu.readF32(logLikelihoods, targets.length),
      best: new Uint32Array(await gpu.read(best, targets.length * 4)),
    };
  };
}

/** Takes a text in, pass by pass; what it gives is there until the callback is done. */
export type TakeIn = (
  /** Gets f32 [length, hidden], the residual stream before the final norm, and the index of the pass's first token. */
  onPass: (hidden: GPUBuffer, length: number, first: number) => Promise<void>,
) => Promise<void>;

/** Looks at what a model predicts. Dispose it to free its buffers. */
export interface TokenScorer extends Disposable {
  /**
   * Scores a text.
   *
   * @param targets the token that follows each
   * @param onLogits called with logits f32 [rows, vocabulary] and the index of the first row, part by part
   */
  score(takeIn: TakeIn, targets: Uint32Array<ArrayBuffer>, onLogits?: OnLogits): Promise<TokenScores>;
  /** Logits f32 [vocabulary] after some tokens of a text. */
  logits(takeIn: TakeIn, positions: readonly number[]): Promise<Float32Array<ArrayBuffer>[]>;
}

/** The final norm and the head, for some rows of the residual stream at a time. */
export interface Head {
  readonly most: number;
  /** Those that logits were made of last. */
  readonly range: TokenRange;
  /** f32 [most, vocabulary]. */
  readonly logits: GPUBuffer;
  /** Makes the logits of some runs of rows. */
  predict(hidden: GPUBuffer, runs: readonly { readonly row: number; readonly count: number }[]): void;
}

export async function createHead(gpu: Gpu, scope: BufferScope, weights: EngineWeights, most: number): Promise<Head> {
  const { hidden: width, vocabulary } = weights.config;
  const make = (label: string, size: number) => scope.storage(label, 4 * most * size);
  const x = await make("rows", width);
  const normed = await make("normed", width);
  const logits = await make("logits", vocabulary);
  const range = await createTokenRange(gpu, most);
  scope.own(range.buffer);
  const dispatches = await logitDispatches(gpu, weights, range, { x, normed, logits });
  return {
    most,
    range,
    logits,
    predict(hidden, runs) {
      let rows = 0;
      for (const { row, count } of runs) {
        gpu.copy(hidden, 4 * row * width, x, 4 * rows * width, 4 * count * width);
        rows += count;
      }
      setTokenRange(gpu, range, rows, 0);
      gpu.submit(dispatches);
    },
  };
}

/** Tokens whose logits are in memory at once. */
const LOGIT_TOKENS = 128;

export function createTokenScorer(gpu: Gpu, weights: EngineWeights): Promise<TokenScorer> {
  const { vocabulary } = weights.config;
  return allOrNone(gpu, async (scope) => {
    const { range, logits, predict } = await createHead(gpu, scope, weights, LOGIT_TOKENS);
    const likelihoods = await createLikelihoodReader(gpu, scope, range, vocabulary, logits);
    /** Has logits made of a text's tokens, part by part. */
    const eachPart = (takeIn: TakeIn, use: (first: number, count: number, make: () => void) => Promise<void>) =>
      takeIn(async (hidden, length, at) => {
        for (let row = 0; row < length; row += LOGIT_TOKENS) {
          const count = Math.min(LOGIT_TOKENS, length - row);
          await use(at + row, count, () => predict(hidden, [{ row, count }]));
        }
      });
    return {
      async score(takeIn, targets, onLogits) {
        const scores = { logLikelihoods: new Float32Array(targets.length), best: new Uint32Array(targets.length) };
        await eachPart(takeIn, async (first, count, make) => {
          make();
          const { logLikelihoods, best } = await likelihoods(targets.slice(first, first + count));
          scores.logLikelihoods.set(logLikelihoods, first);
          scores.best.set(best, first);
          onLogits?.(await gpu.readF32(logits, count * vocabulary), first);
        });
        return scores;
      },
      async logits(takeIn, positions) {
        const rowBytes = 4 * vocabulary;
        const found = new Map<number, Float32Array<ArrayBuffer>>();
        await eachPart(takeIn, async (first, count, make) => {
          const own = positions.filter((position) => position >= first && position < first + count);
          if (own.length > 0) make();
          for (const position of own) {
            found.set(position, new Float32Array(await gpu.read(logits, rowBytes, (position - first) * rowBytes)));
          }
        });
        return positions.map((position) => found.get(position)!);
      },
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}
