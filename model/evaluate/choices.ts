// Multiple-choice items from plain text: pick the true continuation of a context among four.
import type { Random } from "../../quant/random.ts";
import type { ChoiceItem } from "./score.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

export interface ChoicePlan {
  readonly items: number;
  /** Tokens of a context, BOS in front included. */
  readonly contextTokens: number;
  readonly continuationTokens: number;
}

export interface Choices {
  readonly items: readonly ChoiceItem[];
  /** Index of the true continuation of each item. */
  readonly answers: Uint8Array;
  /** Bytes of text of each continuation: [item][continuation]. */
  readonly sizes: readonly (readonly number[])[];
}

const CHOICES = 4;

/**
 * Draws items from a text: a context, the tokens that really follow it, and three continuations that start elsewhere
 * in the same text. Chance is 25 %.
 *
 * @param tokens the whole text
 * @throws {RangeError} when the text is too short to draw from
 */
export function drawChoices(tokens: Uint32Array, tokenizer: Tokenizer, plan: ChoicePlan, random: Random): Choices {
  const { items: count, contextTokens, continuationTokens } = plan;
  const span = contextTokens - 1 + continuationTokens;
  if (tokens.length < 8 * span) {
    throw new RangeError(`text has ${tokens.length} tokens, must have at least ${8 * span} to draw choices from`);
  }
  const items: ChoiceItem[] = [];
  const answers = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const start = random.integer(tokens.length - span);
    const truth = start + contextTokens - 1;
    const starts: number[] = [];
    while (starts.length < CHOICES - 1) {
      const other = random.integer(tokens.length - continuationTokens);
      if (Math.abs(other - truth) > span) starts.push(other);
    }
    answers[i] = random.integer(CHOICES);
    starts.splice(answers[i], 0, truth);
    items.push({
      context: Uint32Array.from([...tokenizer.prefix, ...tokens.subarray(start, truth)]),
      continuations: starts.map((at) => tokens.slice(at, at + continuationTokens)),
    });
  }
  const encoder = new TextEncoder();
  const sizes = items.map(({ continuations }) =>
    continuations.map((continuation) => Math.max(1, encoder.encode(tokenizer.decode(continuation)).length))
  );
  return { items, answers, sizes };
}

/** 1 for each item whose true continuation has the highest log-likelihood a byte; `scores` is [item][continuation]. */
export function judgeChoices({ answers, sizes }: Choices, scores: readonly (readonly number[])[]): Uint8Array {
  return answers.map((answer, item) => {
    const normalized = scores[item].map((score, i) => score / sizes[item][i]);
    return normalized.indexOf(Math.max(...normalized)) === answer ? 1 : 0;
  });
}
