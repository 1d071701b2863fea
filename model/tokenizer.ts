/**
 * Text to tokens and back, through @huggingface/tokenizers.
 *
 * @module
 */
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { parseJsonObject } from "./json.ts";

/** Tokenizer of a model. */
export interface Tokenizer {
  /** Tokens of a text, without special tokens. */
  encode(text: string): Uint32Array<ArrayBuffer>;
  /** Text of tokens; special tokens are left out. */
  decode(tokens: ArrayLike<number>): string;
  /** Largest token id + 1, added tokens included. */
  readonly vocabulary: number;
}

/**
 * Reads tokenizer.json (and tokenizer_config.json where there is one) of a model directory.
 *
 * @throws {SyntaxError} when tokenizer.json is missing or malformed
 */
export async function readTokenizer(directory: string): Promise<Tokenizer> {
  const read = async (file: string) => {
    const path = join(directory, file);
    return parseJsonObject(path, await Deno.readTextFile(path)).fields;
  };
  const definition = await read("tokenizer.json").catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new SyntaxError(`${directory} has no tokenizer.json`);
  });
  const settings = await read("tokenizer_config.json").catch((error) => {
    if (error instanceof Deno.errors.NotFound) return {};
    throw error;
  });
  const tokenizer = createTokenizer(join(directory, "tokenizer.json"), definition, settings);
  const vocabulary = Math.max(...tokenizer.get_vocab().values()) + 1;
  return {
    encode: (text) => Uint32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids),
    decode: (tokens) => tokenizer.decode(Array.from(tokens), { skip_special_tokens: true }),
    vocabulary,
  };
}

function createTokenizer(name: string, definition: object, settings: object): HuggingFaceTokenizer {
  try {
    return new HuggingFaceTokenizer(definition, settings);
  } catch (cause) {
    throw new SyntaxError(`${name} is not a tokenizer: ${(cause as Error).message}`, { cause });
  }
}
