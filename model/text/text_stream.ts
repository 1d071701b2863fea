// Text of tokens as they come.
import type { Tokenizer } from "./tokenizer.ts";

/** Turns tokens into text piece by piece; joined, the pieces are the text of all tokens. */
export interface TextStream {
  /** Takes tokens; returns the text that is certain by now, which may be empty. */
  push(tokens: ArrayLike<number>): string;
  /** Returns the text that was held back. */
  finish(): string;
}

/** Tokens after which decoding starts anew, so that a long text isn't decoded again with every token. */
const RESTART_TOKENS = 64;

/**
 * UTF-16 units that the tokens must have given from which decoding starts anew. A character is at most 4 bytes and a unit
 * at least one, so that these tokens, special ones left out, hold the whole of a last incomplete character, and the
 * loss of a text's leading space lies behind them.
 */
const RESTART_UNITS = 8;

/** Stands for what isn't UTF-8: at the end of a text, for all bytes of an incomplete character together. */
const REPLACEMENT = "\ufffd";

/**
 * Creates a stream. A token may be part of a character, and the first token of a text may lose its leading space; so
 * tokens are decoded together with those before, and the last character is held back while it may be incomplete.
 */
export function createTextStream(tokenizer: Tokenizer): TextStream {
  let tokens: number[] = [];
  let given = "";
  const give = (text: string) => {
    // Should a decoder change what was given, it is the changed part that comes again: nothing is lost.
    const piece = text.slice(text.startsWith(given) ? given.length : commonLength(text, given));
    given = text;
    return piece;
  };
  return {
    push(added) {
      tokens = tokens.concat(Array.from(added));
      const piece = give(certainText(tokenizer.decode(tokens)));
      if (tokens.length > 2 * RESTART_TOKENS) {
        const last = tokens.slice(-RESTART_TOKENS);
        const text = tokenizer.decode(last);
        if (text.length >= RESTART_UNITS) [tokens, given] = [last, certainText(text)];
      }
      return piece;
    },
    finish: () => give(tokenizer.decode(tokens)),
  };
}

function certainText(text: string): string {
  return text.endsWith(REPLACEMENT) ? text.slice(0, -1) : text;
}

function commonLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}
