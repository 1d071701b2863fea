/**
 * Text to tokens and back, as Python's tokenizers do it: byte pairs are merged by @huggingface/tokenizers, what happens
 * to a text before and after is done here, where that library differs from Python's or passes over what it doesn't know.
 *
 * @module
 */
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";
import { createFinder } from "./added_tokens.ts";
import { readBytePairs } from "./byte_pairs.ts";
import { readDecoder } from "./decode_tokens.ts";
import { readNormalizer } from "./normalize.ts";
import { readPreTokenizer } from "./pre_tokenize.ts";
import { readPrefix } from "./prefix.ts";
import { readVocabulary } from "./vocabulary.ts";

/** Tokenizer of a model. */
export interface Tokenizer {
  /** Tokens of a text, without special tokens. @throws {RangeError} for a text whose normal form fills the memory */
  encode(text: string): Uint32Array<ArrayBuffer>;
  /** Text of tokens, to the letter; special tokens and ids without a token are left out. */
  decode(tokens: ArrayLike<number>): string;
  /** Largest token id + 1, added tokens included. */
  readonly vocabulary: number;
  /** Special tokens that the tokenizer by its own settings puts before a text: BOS in Llama, none in Qwen. */
  readonly prefix: Uint32Array<ArrayBuffer>;
  /** Id of a token by its text; undefined where there is none. */
  idOf(token: string): number | undefined;
}

/**
 * Reads the tokenizer of a checkpoint: tokenizer.json, and tokenizer_config.json where there is one.
 *
 * @throws {SyntaxError} when tokenizer.json is missing or malformed, or has a part that isn't known
 */
export async function readTokenizer({ name, readText }: Pick<Checkpoint, "name" | "readText">): Promise<Tokenizer> {
  const read = async (file: string) => {
    const text = await readText(file);
    return text === undefined ? undefined : parseJsonObject(`${name}/${file}`, text);
  };
  const definition = await read("tokenizer.json");
  if (!definition) throw new SyntaxError(`${name} has no tokenizer.json`);
  const { name: file, fields } = definition;
  const vocabulary = readVocabulary(definition);
  const { ids, tokens, added } = vocabulary;
  const encodePieces = readBytePairs(definition, vocabulary.merged);
  const normalize = readNormalizer(`${file}: normalizer`, fields.normalizer);
  const preTokenize = readPreTokenizer(`${file}: pre_tokenizer`, fields.pre_tokenizer);
  const decodeTokens = readDecoder(`${file}: decoder`, fields.decoder);
  const settings = (await read("tokenizer_config.json"))?.fields ?? {};
  const find = createFinder(added.filter((token) => !token.normalized), ({ content }) => content);
  const findNormalized = createFinder(added.filter((token) => token.normalized), ({ content }) => normalize(content));
  const isSpecial = new Set(added.filter(({ special }) => special).map(({ id }) => id));
  return {
    encode: (text) =>
      Uint32Array.from(
        find(text).flatMap((raw, i) =>
          (typeof raw === "number" ? [raw] : findNormalized(normalize(raw))).flatMap((part, k) =>
            typeof part === "number" ? [part] : encodePieces(preTokenize([part], i === 0 && k === 0))
          )
        ),
      ),
    decode(given) {
      const known = Array.from(given).filter((id) => tokens.has(id) && !isSpecial.has(id));
      return known.length === 0 ? "" : decodeTokens(known.map((id) => tokens.get(id)!)).join("");
    },
    vocabulary: tokens.keys().reduce((size, id) => Math.max(size, id + 1), 0),
    prefix: Uint32Array.from(readPrefix(definition, settings, vocabulary)),
    idOf: (token) => ids.get(token),
  };
}

/** A checkpoint's tokenizer. @throws {SyntaxError} when it has tokens that the model lacks */
export async function readFittingTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  const tokenizer = await readTokenizer(checkpoint);
  const { vocabulary } = checkpoint.config;
  if (tokenizer.vocabulary > vocabulary) {
    throw new SyntaxError(
      `${checkpoint.name}: the tokenizer has ${tokenizer.vocabulary} tokens, must have at most the model's ${vocabulary}`,
    );
  }
  return tokenizer;
}
