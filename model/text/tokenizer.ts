/**
 * Text to tokens and back, through @huggingface/tokenizers.
 *
 * @module
 */
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";

/**
 * The library's clean-up of spaces before punctuation, on where the settings don't say, would change what a model wrote
 * ("do n't", "a ? b"), and earlier text whenever a token is appended. Python's tokenizers has none.
 */
const DECODING = { skip_special_tokens: true, clean_up_tokenization_spaces: false } as const;

/** Tokenizer of a model. */
export interface Tokenizer {
  /** Tokens of a text, without special tokens. */
  encode(text: string): Uint32Array<ArrayBuffer>;
  /** Text of tokens, to the letter; special tokens are left out. */
  decode(tokens: ArrayLike<number>): string;
  /** Largest token id + 1, added tokens included. */
  readonly vocabulary: number;
  /** Special tokens that the tokenizer by its own settings puts before a text: BOS in Llama, none in Qwen. */
  readonly prefix: Uint32Array<ArrayBuffer>;
}

/**
 * Reads the tokenizer of a checkpoint: tokenizer.json, and tokenizer_config.json where there is one.
 *
 * @throws {SyntaxError} when tokenizer.json is missing or malformed
 */
export async function readTokenizer({ name, readText }: Pick<Checkpoint, "name" | "readText">): Promise<Tokenizer> {
  return parseTokenizer(name, await readTokenizerTexts(readText));
}

/** The texts that a tokenizer is made from; undefined where there is none. */
export interface TokenizerTexts {
  readonly definition: string | undefined;
  readonly settings: string | undefined;
}

/** Reads them. */
export async function readTokenizerTexts(readText: Checkpoint["readText"]): Promise<TokenizerTexts> {
  return { definition: await readText("tokenizer.json"), settings: await readText("tokenizer_config.json") };
}

/** Makes a tokenizer. @throws {SyntaxError} when its definition is missing or malformed */
export function parseTokenizer(checkpoint: string, { definition, settings = "{}" }: TokenizerTexts): Tokenizer {
  if (definition === undefined) throw new SyntaxError(`${checkpoint} has no tokenizer.json`);
  const fieldsOf = (file: string, text: string) => parseJsonObject(`${checkpoint}/${file}`, text).fields;
  const tokenizer = createTokenizer(
    `${checkpoint}/tokenizer.json`,
    fieldsOf("tokenizer.json", definition),
    fieldsOf("tokenizer_config.json", settings),
  );
  let vocabulary = 0;
  for (const id of tokenizer.get_vocab().values()) vocabulary = Math.max(vocabulary, id + 1);
  return {
    encode: (text) => Uint32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids),
    // The library refuses to decode nothing.
    decode: (tokens) => tokens.length === 0 ? "" : tokenizer.decode(Array.from(tokens), DECODING),
    vocabulary,
    prefix: Uint32Array.from(prefixOf(tokenizer)),
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

function prefixOf(tokenizer: HuggingFaceTokenizer): number[] {
  const [bare] = tokenizer.encode("a", { add_special_tokens: false }).ids;
  const { ids } = tokenizer.encode("a");
  return ids.slice(0, ids.indexOf(bare));
}

function createTokenizer(name: string, definition: object, settings: object): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer(definition, settings);
  } catch (cause) {
    throw new SyntaxError(`${name} is not a tokenizer: ${(cause as Error).message}`, { cause });
  }
}
