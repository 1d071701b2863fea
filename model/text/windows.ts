/**
 * Cutting text into windows of tokens.
 *
 * @module
 */
import type { Text } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How windows are taken from a text. */
export interface WindowPlan {
  /** Tokens of a window, the BOS token in front included. */
  readonly length: number;
  /** Number of windows, spread evenly over the text; all of them where the text has fewer. */
  readonly count: number;
}

/** Windows of a text; all tokens of each but the first are predicted. */
export interface Windows {
  /** Name of the text. */
  readonly text: string;
  /** Tokens of each window. */
  readonly windows: readonly Uint32Array<ArrayBuffer>[];
  /** Tokens of the whole text, BOS of each document included. */
  readonly textTokens: number;
  /** Whether windows are the text's own tokens alone, without BOS in front. */
  readonly plain?: boolean;
}

/** Tokens of all documents of a text: BOS before each, or where windows are plain the tokenizer's own prefix. */
export function joinTokens(text: Text, tokenizer: Tokenizer, bosToken: number): Uint32Array<ArrayBuffer> {
  if (text.plainWindows) {
    return Uint32Array.from([...tokenizer.prefix, ...tokenizer.encode(text.documents.join("\n\n"))]);
  }
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

/** Cuts tokens into the windows of a text, by its rule. @throws {RangeError} as {@linkcode cutWindows} */
export function cutText(text: Text, tokens: Uint32Array, bosToken: number, plan: WindowPlan): Windows {
  return text.plainWindows ? cutPlainWindows(text.name, tokens, plan) : cutWindows(text.name, tokens, bosToken, plan);
}

/** Cuts tokens into pieces of `length` without overlap (the remainder is left out) and takes `count` at even distances. */
function cutPlainWindows(text: string, tokens: Uint32Array, { length, count }: WindowPlan): Windows {
  const available = Math.floor(tokens.length / length);
  if (available < 1) throw new RangeError(`text ${text} has ${tokens.length} tokens, must have at least ${length}`);
  const taken = Math.min(count, available);
  const windows = Array.from({ length: taken }, (_, i) => {
    const start = Math.floor((i * available) / taken) * length;
    return Uint32Array.from(tokens.subarray(start, start + length));
  });
  return { text, windows, textTokens: tokens.length, plain: true };
}

/** Characters of an excerpt for each token that is wanted of it; enough for any tokenizer on any text we know. */
const CHARACTERS_PER_TOKEN = 12;

/**
 * Takes windows that start at even distances of the text's characters, each within one document, without tokenizing
 * the rest: for calibration, where the text is long and few windows are needed.
 *
 * @throws {RangeError} when no document is long enough for a window
 */
export function sampleWindows(text: Text, tokenizer: Tokenizer, bosToken: number, plan: WindowPlan): Windows {
  const { length, count } = plan;
  const excerptLength = (length - 1) * CHARACTERS_PER_TOKEN;
  const documents = text.documents.filter((document) => document.length >= excerptLength);
  const total = documents.reduce((sum, document) => sum + document.length, 0);
  if (total === 0) {
    throw new RangeError(`text ${text.name} has no document of ${excerptLength} characters, must have at least one`);
  }
  const windows: Uint32Array<ArrayBuffer>[] = [];
  let passed = 0;
  let document = 0;
  for (let i = 0; i < count; i++) {
    const wanted = ((i + 0.5) * total) / count;
    while (passed + documents[document].length <= wanted) passed += documents[document++].length;
    const start = Math.min(Math.floor(wanted - passed), documents[document].length - excerptLength);
    const tokens = tokenizer.encode(documents[document].slice(start, start + excerptLength));
    if (tokens.length < length - 1) {
      throw new RangeError(
        `${excerptLength} characters of ${text.name} have ${tokens.length} tokens, must have ${length - 1}`,
      );
    }
    const window = new Uint32Array(length);
    window[0] = bosToken;
    window.set(tokens.subarray(0, length - 1), 1);
    windows.push(window);
  }
  return { text: text.name, windows, textTokens: windows.length * (length - 1) };
}
