// Byte-pair encoding: pieces of a text to tokens.
import { BPE } from "@huggingface/tokenizers";
import { asJsonObject, booleanField, type JsonObject, listField } from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";

/** Gives the ids of the tokens of pieces. @throws {SyntaxError} for text that the vocabulary has no token for */
export type EncodePieces = (pieces: readonly string[]) => readonly number[];

/**
 * Reads the model of tokenizer.json.
 *
 * @param ids tokens that merging gives
 * @throws {SyntaxError} for a model of another kind or with a setting that isn't known, or for merges of unknown tokens
 */
export function readBytePairs({ name, fields }: JsonObject, ids: ReadonlyMap<string, number>): EncodePieces {
  const json = asJsonObject(`${name}: model`, fields.model);
  checkSettings(json);
  const { unk_token: unknown } = json.fields;
  const unknownId = typeof unknown === "string" ? ids.get(unknown) : undefined;
  if (unknown !== null && unknown !== undefined && unknownId === undefined) {
    throw new SyntaxError(`${json.name}: unk_token is ${quoteText(unknown)}, must be in the vocabulary`);
  }
  const merges = listField(json, "merges").map((merge) => readMerge(json.name, merge, ids));
  const model = new BPE(
    { ...json.fields, unk_token: unknownId === undefined ? null : unknown, merges, fuse_unk: false } as never,
  );
  const fuses = booleanField(json, "fuse_unk", false);
  const encode = (piece: string): number[] => {
    const tokens = model.encode([piece]);
    if (unknownId === undefined && tokens.join("") !== piece) {
      // Python leaves out what there is no token for before it merges, not afterwards.
      const known = Array.from(piece).filter((character) => model.encode([character]).length > 0).join("");
      if (known !== piece) return encode(known);
    }
    const found = tokens.map((token) => ids.get(token)!);
    return fuses ? found.filter((id, i) => id !== unknownId || found[i - 1] !== unknownId) : found;
  };
  return (pieces) => pieces.flatMap(encode);
}

/** Settings that the library passes over. */
function checkSettings({ name, fields }: JsonObject): void {
  const { type = "BPE", dropout, continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = fields;
  if (type !== "BPE") throw new SyntaxError(`${name} has type ${quoteText(type)}, must be BPE`);
  for (
    const [key, value] of Object.entries({ dropout, continuing_subword_prefix: prefix, end_of_word_suffix: suffix })
  ) {
    // Python's own files hold null or nothing here.
    if (value) throw new SyntaxError(`${name}: ${key} is ${quoteText(value)}, must be null`);
  }
}

/** A merge is "left right" or a list of both. */
function readMerge(name: string, merge: unknown, ids: ReadonlyMap<string, number>): [string, string] {
  const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (Array.isArray(parts) && parts.length === 2) {
    const [left, right] = parts;
    if (ids.has(left) && ids.has(right) && ids.has(left + right)) return [left, right];
  }
  throw new SyntaxError(`${name}: merge ${quoteText(merge)} must be of two tokens of the vocabulary to a third`);
}
