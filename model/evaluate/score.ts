// Scoring predictions: log-likelihood, top-1 and KL divergence of windows, and log-likelihood of choices.
import { forward, logitsOf, type Segment } from "../llama/forward.ts";
import type { Model } from "../llama/llama.ts";
import { exponentials, type MatMul } from "../llama/matmul.ts";
import { clusteredMean, type Estimate, exponentialOf } from "../host/statistics.ts";

/** Predictions of one window of n + 1 tokens, one element for each of its n predicted tokens. */
export interface WindowScore {
  /** f32 [n]: -log p(token), in nats. */
  readonly negativeLogLikelihood: Float32Array;
  /** u8 [n]: 1 where the token was the most likely one. */
  readonly top1: Uint8Array;
  /** f32 [n]: KL(reference || model), in nats; where reference log-probabilities were given. */
  readonly divergence?: Float32Array;
}

/** Rows of logits that are in memory at once. */
const LOGIT_ROWS = 512;

/**
 * Scores the prediction of every token of a window but its first.
 *
 * @param reference f32 [n, vocabulary]: log-probabilities to compare with
 * @param keep f32 [n, vocabulary]: receives this model's log-probabilities
 * @throws {RangeError} when a prediction is no number
 */
export function scoreWindow(
  model: Model,
  tokens: Uint32Array,
  matmul: MatMul,
  { reference, keep }: { reference?: Float32Array; keep?: Float32Array } = {},
): WindowScore {
  const { hidden: width, vocabulary } = model.config;
  const predicted = tokens.length - 1;
  const { hidden } = forward(model, [{ tokens: tokens.subarray(0, predicted) }], matmul);
  const negativeLogLikelihood = new Float32Array(predicted);
  const top1 = new Uint8Array(predicted);
  const divergence = reference && new Float32Array(predicted);
  for (let first = 0; first < predicted; first += LOGIT_ROWS) {
    const count = Math.min(LOGIT_ROWS, predicted - first);
    const logits = logitsOf(model, hidden.subarray(first * width, (first + count) * width), matmul);
    for (let t = 0; t < count; t++) {
      const row = logits.subarray(t * vocabulary, (t + 1) * vocabulary);
      const target = tokens[first + t + 1];
      top1[first + t] = argmax(row) === target ? 1 : 0;
      toLogProbabilities(row, matmul);
      if (Number.isNaN(row[target])) throw new RangeError(`logits at position ${first + t} are not numbers`);
      negativeLogLikelihood[first + t] = -row[target];
      const at = (first + t) * vocabulary;
      keep?.set(row, at);
      if (divergence) divergence[first + t] = divergenceFrom(reference.subarray(at, at + vocabulary), row, matmul);
    }
  }
  return { negativeLogLikelihood, top1, ...(divergence && { divergence }) };
}

/** Perplexity, which is exp of the mean loss, and the share of tokens predicted as the most likely ones. */
export function summarizeWindows(scores: readonly WindowScore[]): Readonly<Record<"perplexity" | "top1", Estimate>> {
  const loss = clusteredMean(scores.map((score) => score.negativeLogLikelihood));
  return { perplexity: exponentialOf(loss), top1: clusteredMean(scores.map((score) => score.top1)) };
}

/** A context and the continuations to choose from. */
export interface ChoiceItem {
  /** Tokens before, BOS first. */
  readonly context: Uint32Array;
  readonly continuations: readonly Uint32Array[];
}

/**
 * Log-likelihood of every continuation of every item, in nats: [item][continuation].
 *
 * @throws {RangeError} when a prediction is no number
 */
export function scoreChoices(model: Model, items: readonly ChoiceItem[], matmul: MatMul): number[][] {
  const width = model.config.hidden;
  const contexts = forward(model, items.map(({ context }) => ({ tokens: context })), matmul);
  // The last token of a context predicts the first token of each continuation, whose tokens but the last predict the rest.
  const segments: Segment[] = items.flatMap(({ continuations }, item) =>
    continuations.map((tokens) => ({ tokens: tokens.subarray(0, -1), prefix: contexts.cache[item] }))
  );
  const { hidden } = forward(model, segments, matmul);
  const scores: number[][] = [];
  let contextEnd = 0;
  let at = 0;
  for (const { context, continuations } of items) {
    contextEnd += context.length;
    const last = contexts.hidden.subarray((contextEnd - 1) * width, contextEnd * width);
    // All of an item together: a product packs the head's weights anew.
    const rows = new Float32Array(continuations.reduce((sum, { length }) => sum + length, 0) * width);
    let to = 0;
    for (const { length } of continuations) {
      rows.set(last, to * width);
      rows.set(hidden.subarray(at * width, (at + length - 1) * width), (to + 1) * width);
      at += length - 1;
      to += length;
    }
    scores.push(logLikelihoods(logitsOf(model, rows, matmul), continuations, model.config.vocabulary, matmul));
  }
  return scores;
}

/** Log-likelihood of each continuation by the logits f32 [tokens of all, vocabulary], which are used up. */
function logLikelihoods(
  logits: Float32Array,
  continuations: readonly Uint32Array[],
  vocabulary: number,
  matmul: MatMul,
): number[] {
  let at = 0;
  return continuations.map((tokens) => {
    let sum = 0;
    for (const [t, token] of tokens.entries()) {
      const row = toLogProbabilities(logits.subarray(at, at += vocabulary), matmul);
      if (Number.isNaN(row[token])) throw new RangeError(`logits of continuation token ${t} are not numbers`);
      sum += row[token];
    }
    return sum;
  });
}

function argmax(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}

/** Replaces logits by log-probabilities and returns them. */
export function toLogProbabilities(row: Float32Array, matmul: MatMul): Float32Array {
  const max = row[argmax(row)];
  let sum = 0;
  const values = exponentials(matmul, row, max, 1);
  for (let i = 0; i < values.length; i++) sum += values[i];
  const shift = max + Math.log(sum);
  for (let i = 0; i < row.length; i++) row[i] -= shift;
  return row;
}

/** KL(reference || other) of log-probabilities, in nats. */
export function divergenceFrom(reference: Float32Array, other: Float32Array, matmul: MatMul): number {
  const probabilities = exponentials(matmul, reference, 0, 1);
  let sum = 0;
  for (let i = 0; i < reference.length; i++) sum += probabilities[i] * (reference[i] - other[i]);
  return sum;
}
