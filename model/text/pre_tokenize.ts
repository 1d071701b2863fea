// Pre-tokenizers of tokenizer.json: what cuts a text into the pieces within which tokens are merged, as Python's
// tokenizers cut it.
import { asJsonObject, booleanField, byType, type JsonObject, textField } from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";
import { toByteCharacters } from "./byte_characters.ts";
import { readSequence } from "./sequence.ts";
import { compilePattern } from "./token_pattern.ts";

/** Cuts pieces further; `isFirst` says that the first of them starts the whole text. */
export type PreTokenize = (pieces: readonly string[], isFirst: boolean) => readonly string[];

/** Reads a pre-tokenizer; null is none. @throws {SyntaxError} for one that isn't known */
export function readPreTokenizer(name: string, value: unknown): PreTokenize {
  return value === null || value === undefined ? (pieces) => pieces : readPart(asJsonObject(name, value));
}

/** What GPT-2 cuts by; \s is Unicode's White_Space, which JavaScript's isn't. */
const GPT2_PATTERN =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;

function readPart(json: JsonObject): PreTokenize {
  return byType<PreTokenize>(json, {
    Sequence: (json) => {
      const parts = readSequence(json, "pretokenizers", readPart);
      return (pieces, isFirst) => parts.reduce((pieces, part) => part(pieces, isFirst), pieces);
    },
    ByteLevel: (json) => {
      const [addsSpace, cuts] = [booleanField(json, "add_prefix_space", true), booleanField(json, "use_regex", true)];
      return each((piece) => {
        const spaced = addsSpace && !piece.startsWith(" ") ? ` ${piece}` : piece;
        return (cuts ? cut(spaced, GPT2_PATTERN, isolate) : [spaced]).map(toByteCharacters);
      });
    },
    Digits: (json) =>
      booleanField(json, "individual_digits", false) ? cutter(/\p{N}/gu, isolate) : cutter(/\p{N}+/gu, isolate),
    Metaspace: readMetaspace,
    Punctuation: (json) => cutter(PUNCTUATION, readBehavior(json, "Isolated")),
    Split: (json) => cutter(compilePattern(json), readBehavior(json), booleanField(json, "invert", false)),
    WhitespaceSplit: () => cutter(/\p{White_Space}/gu, remove),
  });
}

function readMetaspace(json: JsonObject): PreTokenize {
  const replacement = textField(json, "replacement", "\u2581");
  const scheme = textField(json, "prepend_scheme", booleanField(json, "add_prefix_space", true) ? "always" : "never");
  if (!["always", "first", "never"].includes(scheme)) {
    throw new SyntaxError(`${json.name}: prepend_scheme is ${quoteText(scheme)}, must be always, first or never`);
  }
  const mark = new RegExp(replacement.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "gu");
  const cuts = booleanField(json, "split", true);
  return (pieces, isFirst) =>
    pieces.flatMap((piece, i) => {
      const marked = piece.replaceAll(" ", () => replacement);
      const prepends = scheme === "always" || (scheme === "first" && isFirst && i === 0);
      const whole = prepends && !marked.startsWith(replacement) ? replacement + marked : marked;
      return cuts ? cut(whole, mark, mergeWithNext) : [whole];
    });
}

/** A part of a piece: what a pattern found, or what lies between. */
interface Part {
  text: string;
  readonly isMatch: boolean;
}

/** What becomes of what is found and of what lies between. */
type Behavior = (parts: readonly Part[]) => readonly Part[];

const isolate: Behavior = (parts) => parts;
const remove: Behavior = (parts) => parts.filter(({ isMatch }) => !isMatch);
/** What is found joins what lies before it; of several in a row only the first does. */
const mergeWithPrevious: Behavior = (parts) =>
  merge(parts, (last, part) => part.isMatch && !last.isMatch && last.text + part.text);
const mergeWithNext: Behavior = (parts) =>
  merge(parts.toReversed(), (last, part) => part.isMatch && !last.isMatch && part.text + last.text).reverse();
const mergeAlike: Behavior = (parts) =>
  merge(parts, (last, part) => part.isMatch === last.isMatch && last.text + part.text);

/** Joins neighbours where `join` gives a text; `isMatch` is that of the part that came last. */
function merge(parts: readonly Part[], join: (last: Part, part: Part) => string | false): Part[] {
  const merged: Part[] = [];
  for (const part of parts) {
    const text = merged.length > 0 && join(merged[merged.length - 1], part);
    if (text === false) merged.push(part);
    else merged[merged.length - 1] = { text, isMatch: part.isMatch };
  }
  return merged;
}

const BEHAVIORS: Readonly<Record<string, Behavior>> = {
  Isolated: isolate,
  Removed: remove,
  MergedWithPrevious: mergeWithPrevious,
  MergedWithNext: mergeWithNext,
  Contiguous: mergeAlike,
};

function readBehavior(json: JsonObject, fallback?: string): Behavior {
  const behavior = textField(json, "behavior", fallback);
  if (Object.hasOwn(BEHAVIORS, behavior)) return BEHAVIORS[behavior];
  throw new SyntaxError(
    `${json.name}: behavior is ${quoteText(behavior)}, must be one of ${Object.keys(BEHAVIORS).join(", ")}`,
  );
}

function each(work: (piece: string) => readonly string[]): PreTokenize {
  return (pieces) => pieces.flatMap(work);
}

function cutter(pattern: RegExp, behavior: Behavior, isInverted = false): PreTokenize {
  return each((piece) => cut(piece, pattern, behavior, isInverted));
}

/** Cuts a piece where a pattern is found; an inverted one finds what lies between. */
function cut(piece: string, pattern: RegExp, behavior: Behavior, isInverted = false): string[] {
  const parts: Part[] = [];
  let end = 0;
  for (const { 0: text, index } of piece.matchAll(pattern)) {
    if (index > end) parts.push({ text: piece.slice(end, index), isMatch: isInverted });
    parts.push({ text, isMatch: !isInverted });
    end = index + text.length;
  }
  if (end < piece.length) parts.push({ text: piece.slice(end), isMatch: isInverted });
  return behavior(parts).map(({ text }) => text).filter((text) => text !== "");
}
