// Text to tokens and back, as Python's tokenizers do it: byte pairs are merged by @huggingface/tokenizers, what happens
// to a text before and after is done here, where that library differs from Python's or skips what it doesn't know.
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";
import { createTimeLimit } from "../host/time_limit.ts";
import { createFinder } from "./added_tokens.ts";
import { readBytePairs } from "./byte_pairs.ts";
import { readDecoder } from "./decode_tokens.ts";
import { readNormalizer } from "./normalize.ts";
import { readPreTokenizer } from "./pre_tokenize.ts";
import { readPrefix } from "./prefix.ts";
import { readVocabulary } from "./vocabulary.ts";

/** Tokenizer of a model. */
export interface Tokenizer {
  /**
   * Tokens of a text, without special tokens.
   *
   * @throws {SyntaxError} where its normal form fills the memory, or the tokenizer's patterns take too long
   */
  encode(text: string): Uint32Array<ArrayBuffer>;
  /** Text of tokens, to the letter; special tokens and ids without a token are left out. */
  decode(tokens: ArrayLike<number>): string;
  /** Largest token id + 1, added tokens included. */
  readonly vocabulary: number;
  /** Special tokens that the tokenizer by its own settings puts before a text: BOS in Llama, none in Qwen. */
  readonly prefix: Uint32Array<ArrayBuffer>;
}

/**
 * Reads the tokenizer of a checkpoint: tokenizer.json, and tokenizer_config.json where there is one.
 *
 * @throws {SyntaxError} when tokenizer.json is missing or malformed, or has a part that isn't known
 */
export async function readTokenizer({ name, readText }: Pick<Checkpoint, "name" | "readText">): Promise<Tokenizer> {
  return parseTokenizer(name, await readTokenizerTexts(readText));
}

/** The texts that a tokenizer is made from; undefined where there is none. */
export interface TokenizerTexts {
  /** tokenizer.json */
  readonly definition: string | undefined;
  /** tokenizer_config.json */
  readonly settings: string | undefined;
}

export async function readTokenizerTexts(readText: Checkpoint["readText"]): Promise<TokenizerTexts> {
  return { definition: await readText("tokenizer.json"), settings: await readText("tokenizer_config.json") };
}

/** Makes a tokenizer. @throws {SyntaxError} when its definition is missing or malformed, or has a part that isn't known */
export function parseTokenizer(checkpoint: string, texts: TokenizerTexts): Tokenizer {
  if (texts.definition === undefined) throw new SyntaxError(`${checkpoint} has no tokenizer.json`);
  const definition = parseJsonObject(`${checkpoint}/tokenizer.json`, texts.definition);
  const settings = parseJsonObject(`${checkpoint}/tokenizer_config.json`, texts.settings ?? "{}").fields;
  const { name: file, fields } = definition;
  const vocabulary = readVocabulary(definition);
  const { tokens, added } = vocabulary;
  const encodePieces = readBytePairs(definition, vocabulary.merged);
  const normalize = readNormalizer(`${file}: normalizer`, fields.normalizer);
  const preTokenize = readPreTokenizer(`${file}: pre_tokenizer`, fields.pre_tokenizer);
  const decodeTokens = readDecoder(`${file}: decoder`, fields.decoder);
  const find = createFinder(file, added.filter((token) => !token.normalized), ({ content }) => content);
  const limit = createTimeLimit(file);
  const findNormalized = limit(added.length, () =>
    createFinder(
      file,
      added.filter((token) => token.normalized),
      ({ content }) => normalize(content),
    ));
  const isSpecial = new Set(added.filter(({ special }) => special).map(({ id }) => id));
  return {
    encode: (text) =>
      limit(text.length, () =>
        Uint32Array.from(
          find(text).flatMap((raw, i) =>
            (typeof raw === "number" ? [raw] : findNormalized(normalize(raw))).flatMap((part, k) =>
              typeof part === "number" ? [part] : encodePieces(preTokenize([part], i === 0 && k === 0))
            )
          ),
        )),
    decode(given) {
      const known = Array.from(given).filter((id) => tokens.has(id) && !isSpecial.has(id));
      if (known.length === 0) return "";
      return limit(known.length, () => decodeTokens(known.map((id) => tokens.get(id)!)).join(""));
    },
    vocabulary: tokens.keys().reduce((size, id) => Math.max(size, id + 1), 0),
    prefix: Uint32Array.from(readPrefix(definition, settings, vocabulary)),
  };
}

/** A checkpoint's tokenizer. @throws {SyntaxError} when it has tokens that the model lacks */
export async function readFittingTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  return fitTokenizer(checkpoint, await readTokenizer(checkpoint));
}

/** The tokenizer itself. @throws {SyntaxError} when it has tokens that the model lacks */
export function fitTokenizer({ name, config: { vocabulary } }: Checkpoint, tokenizer: Tokenizer): Tokenizer {
  if (tokenizer.vocabulary <= vocabulary) return tokenizer;
  throw new SyntaxError(
    `${name}: the tokenizer has ${tokenizer.vocabulary} tokens, must have at most the model's ${vocabulary}`,
  );
}
