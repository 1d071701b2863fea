// Cutting text into windows of tokens.
import { joinArrays } from "../../quant/concatenate.ts";
import type { Text } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface WindowPlan {
  /** Tokens of a window, those that the tokenizer puts in front included. */
  readonly length: number;
  /** Number of windows, spread evenly over the text; all of them where the text has fewer. */
  readonly count: number;
}

/** Windows of a text; all tokens of each but the first are predicted. */
export interface Windows {
  readonly text: string;
  readonly windows: readonly Uint32Array<ArrayBuffer>[];
  /** Tokens of the whole text, those in front of each document included. */
  readonly textTokens: number;
  /** Whether windows are the text's own tokens alone, with nothing in front. */
  readonly plain?: boolean;
}

/** Tokens of all documents of a text: what the tokenizer puts before a text stands before each, or once where windows are plain. */
export function joinTokens(text: Text, { prefix, encode }: Tokenizer): Uint32Array<ArrayBuffer> {
  const documents = text.plainWindows ? [text.documents.join("\n\n")] : text.documents;
  return joinArrays(documents.flatMap((document) => [prefix, encode(document)]), Uint32Array);
}

/**
 * Cuts tokens into pieces of the plan's length without overlap (the remainder is left out) and takes as many as it wants
 * at even distances. Unless windows are plain, each is what the tokenizer puts before a text, and a shorter piece.
 *
 * @throws {RangeError} when the text is shorter than one window
 */
export function cutWindows(
  text: Text,
  tokens: Uint32Array<ArrayBuffer>,
  tokenizer: Tokenizer,
  plan: WindowPlan,
): Windows {
  const prefix = text.plainWindows ? new Uint32Array() : tokenizer.prefix;
  const length = lengthWithin(plan, prefix);
  const available = Math.floor(tokens.length / length);
  if (available < 1) {
    throw new RangeError(`text ${text.name} has ${tokens.length} tokens, must have at least ${length}`);
  }
  const taken = Math.min(plan.count, available);
  const windows = Array.from({ length: taken }, (_, i) => {
    const start = Math.floor((i * available) / taken) * length;
    return joinArrays([prefix, tokens.subarray(start, start + length)]);
  });
  return { text: text.name, windows, textTokens: tokens.length, plain: prefix.length === 0 };
}

/** Tokens of a window behind those in front. @throws {RangeError} when there is room for none */
function lengthWithin({ length }: WindowPlan, prefix: ArrayLike<number>): number {
  if (length > prefix.length) return length - prefix.length;
  throw new RangeError(`windows have ${length} tokens, must have more than the ${prefix.length} in front of a text`);
}

/** Characters of an excerpt for each token that is wanted of it; enough for any tokenizer on any text we know. */
export const CHARACTERS_PER_TOKEN = 12;

/** Windows of a text that is too short, to each that it holds without overlap: they start half a window apart. */
const OVERLAPPING_WINDOWS = 2;

/**
 * How many windows {@linkcode sampleWindows} is to take of a text: as many as are wanted where it has the tokens for
 * them, else at most twice as many as it has tokens for, which then overlap. They start at even distances of its
 * characters, so at least half a window apart as far as tokens are equally long; a document's last may be nearer to the
 * one before it. More would have most of their tokens in common.
 */
export function countWindows(text: Text, tokenizer: Tokenizer, plan: WindowPlan): number {
  const length = lengthWithin(plan, tokenizer.prefix);
  const documents = longDocuments(text, length);
  const characters = documents.reduce((sum, document) => sum + document.length, 0);
  // A long text has enough without counting.
  if (characters >= plan.count * length * CHARACTERS_PER_TOKEN) return plan.count;
  const tokens = documents.reduce((sum, document) => sum + tokenizer.encode(document).length, 0);
  return Math.max(1, Math.min(plan.count, Math.floor(OVERLAPPING_WINDOWS * tokens / length)));
}

/** Documents that an excerpt for a window fits into. @throws {RangeError} when there is none */
function longDocuments({ name, documents }: Text, length: number): readonly string[] {
  const characters = length * CHARACTERS_PER_TOKEN;
  const long = documents.filter((document) => document.length >= characters);
  if (long.length > 0) return long;
  throw new RangeError(
    `text ${name} has no document of ${characters} characters, must have at least one, or windows be shorter`,
  );
}

/**
 * Takes windows that start at even distances of the text's characters, each within one document, without tokenizing
 * the rest: for calibration, where the text is long and few windows are needed. A window starts at the latest where an
 * excerpt still fits into its document, or else where the window before it ends; the last tokens of a document are one
 * window and not several.
 *
 * @throws {RangeError} when no document is long enough for a window
 */
export function sampleWindows(text: Text, tokenizer: Tokenizer, plan: WindowPlan): Windows {
  const { prefix } = tokenizer;
  const length = lengthWithin(plan, prefix);
  const excerptLength = length * CHARACTERS_PER_TOKEN;
  const documents = longDocuments(text, length);
  const windows: Uint32Array<ArrayBuffer>[] = [];
  let before = { document: -1, end: 0 };
  for (const { document, wanted } of spreadStarts(documents.map(({ length }) => length), plan.count)) {
    const source = documents[document];
    const earliest = before.document === document ? before.end : 0;
    const start = Math.min(wanted, Math.max(source.length - excerptLength, earliest));
    const excerpt = tokenizer.encode(source.slice(start, start + excerptLength));
    const isLast = excerpt.length < length;
    if (isLast && earliest >= source.length) continue;
    const tokens = isLast ? tokenizer.encode(source.slice(-excerptLength)).slice(-length) : excerpt.subarray(0, length);
    if (tokens.length < length) {
      throw new RangeError(
        `${excerptLength} characters of ${text.name} have ${tokens.length} tokens, must have ${length}`,
      );
    }
    windows.push(joinArrays([prefix, tokens]));
    before = { document, end: isLast ? source.length : start + tokenizer.decode(tokens).length };
  }
  return { text: text.name, windows, textTokens: windows.length * length };
}

/** Characters at the middle of `count` equal parts of documents that follow each other. */
function* spreadStarts(lengths: readonly number[], count: number): Generator<{ document: number; wanted: number }> {
  const total = lengths.reduce((sum, length) => sum + length, 0);
  let passed = 0;
  let document = 0;
  for (let i = 0; i < count; i++) {
    const middle = ((i + 0.5) * total) / count;
    while (passed + lengths[document] <= middle) passed += lengths[document++];
    yield { document, wanted: Math.floor(middle - passed) };
  }
}
