/**
 * Text of tokens as they come.
 *
 * @module
 */
import type { Tokenizer } from "./tokenizer.ts";

/** Turns tokens into text piece by piece. */
export interface TextStream {
  /** Takes tokens; returns the text that is certain by now, which may be empty. */
  push(tokens: ArrayLike<number>): string;
  /** Returns the text that was held back. */
  finish(): string;
}

/** Tokens after which decoding starts anew, so that a long text isn't decoded again with every token. */
const RESTART_TOKENS = 64;

/**
 * Creates a stream. A token may be part of a character, and the first token of a text may lose its leading space; so
 * tokens are decoded together with those before, and text is held back while its last character is incomplete.
 */
export function createTextStream(tokenizer: Tokenizer): TextStream {
  let tokens: number[] = [];
  let givenTokens = 0;
  const text = (count: number) => tokenizer.decode(tokens.slice(0, count));
  const rest = (count: number) => text(count).slice(text(givenTokens).length);
  return {
    push(added) {
      tokens.push(...Array.from(added));
      const piece = rest(tokens.length);
      if (piece === "" || piece.endsWith("\ufffd")) return "";
      if (tokens.length > 2 * RESTART_TOKENS) tokens = tokens.slice(-RESTART_TOKENS);
      givenTokens = tokens.length;
      return piece;
    },
    finish() {
      const piece = rest(tokens.length);
      givenTokens = tokens.length;
      return piece;
    },
  };
}
