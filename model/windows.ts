/**
 * Cutting text into windows of tokens.
 *
 * @module
 */
import type { Text } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How a text is cut into windows. */
export interface WindowPlan {
  /** Tokens of a window, the BOS token in front included. */
  readonly length: number;
  /** Number of windows, spread evenly over the text; all of them where the text has fewer. */
  readonly count: number;
}

/** Windows of a text; each starts with BOS, so `length - 1` tokens of each are predicted. */
export interface Windows {
  readonly text: string;
  readonly windows: readonly Uint32Array<ArrayBuffer>[];
  /** Tokens of the whole text, BOS of each document included. */
  readonly textTokens: number;
}

/** Tokens of all documents of a text, BOS before each. */
export function joinTokens(text: Text, tokenizer: Tokenizer, bosToken: number): Uint32Array<ArrayBuffer> {
  const parts = text.documents.map((document) => tokenizer.encode(document));
  const tokens = new Uint32Array(parts.reduce((sum, part) => sum + 1 + part.length, 0));
  let at = 0;
  for (const part of parts) {
    tokens[at] = bosToken;
    tokens.set(part, at + 1);
    at += 1 + part.length;
  }
  return tokens;
}

/**
 * Cuts tokens into pieces of `length - 1` without overlap (the remainder is left out), takes `count` pieces at even
 * distances and puts BOS before each.
 *
 * @throws {RangeError} when the text is shorter than one window
 */
export function cutWindows(text: string, tokens: Uint32Array, bosToken: number, plan: WindowPlan): Windows {
  const { length, count } = plan;
  const available = Math.floor(tokens.length / (length - 1));
  if (available < 1) {
    throw new RangeError(`text ${text} has ${tokens.length} tokens, must have at least ${length - 1}`);
  }
  const taken = Math.min(count, available);
  const windows = Array.from({ length: taken }, (_, i) => {
    const start = Math.floor((i * available) / taken) * (length - 1);
    const window = new Uint32Array(length);
    window[0] = bosToken;
    window.set(tokens.subarray(start, start + length - 1), 1);
    return window;
  });
  return { text, windows, textTokens: tokens.length };
}
