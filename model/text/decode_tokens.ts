// Decoders of tokenizer.json: texts of tokens joined into one text, as Python's tokenizers join them.
import { joinArrays } from "../../quant/concatenate.ts";
import { asJsonObject, byType, type JsonObject, numberField, textField } from "../host/json.ts";
import { fromByteCharacters } from "./byte_characters.ts";
import { readSequence } from "./sequence.ts";
import { compilePattern } from "./token_pattern.ts";

/** Changes the texts of tokens; joined they are the text. */
export type DecodeTokens = (tokens: readonly string[]) => readonly string[];

/** Reads a decoder; null puts a space between tokens. @throws {SyntaxError} for one that isn't known */
export function readDecoder(name: string, value: unknown): DecodeTokens {
  return value === null || value === undefined ? (tokens) => [tokens.join(" ")] : readPart(asJsonObject(name, value));
}

/** U+FEFF at the start of some bytes is a character like any other. */
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });

function readPart(json: JsonObject): DecodeTokens {
  return byType<DecodeTokens>(json, {
    Sequence: (json) => {
      const parts = readSequence(json, "decoders", readPart);
      return (tokens) => parts.reduce((tokens, part) => part(tokens), tokens);
    },
    ByteLevel: readByteLevel,
    ByteFallback: () => decodeBytes,
    Fuse: () => (tokens) => [tokens.join("")],
    Metaspace: (json) => {
      const replacement = textField(json, "replacement", "\u2581");
      const prepends = textField(json, "prepend_scheme", "always") !== "never";
      return (tokens) => tokens.map((token, i) => token.replaceAll(replacement, prepends && i === 0 ? "" : " "));
    },
    Replace: (json) => {
      const [pattern, content] = [compilePattern(json), textField(json, "content")];
      return (tokens) => tokens.map((token) => token.replace(pattern, () => content));
    },
    Strip: readStrip,
  });
}

function readByteLevel(): DecodeTokens {
  const known = new Map<string, Uint8Array<ArrayBuffer>>();
  const bytesOf = (token: string) => {
    const bytes = known.get(token) ?? fromByteCharacters(token);
    known.set(token, bytes);
    return bytes;
  };
  return (tokens) => [UTF8.decode(joinArrays(tokens.map(bytesOf), Uint8Array))];
}

function readStrip(json: JsonObject): DecodeTokens {
  const content = textField(json, "content");
  const [start, stop] = ["start", "stop"].map((key) => numberField(json, key, { min: 0, integer: true, fallback: 0 }));
  return (tokens) =>
    tokens.map((token) => {
      const characters = Array.from(token);
      let [first, last] = [0, characters.length];
      while (first < start && characters[first] === content) first++;
      while (characters.length - last < stop && last > first && characters[last - 1] === content) last--;
      return characters.slice(first, last).join("");
    });
}

/** Tokens like <0xE2> are bytes; those in a row are one text. */
function decodeBytes(tokens: readonly string[]): string[] {
  const texts: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    if (bytes.length > 0) texts.push(UTF8.decode(Uint8Array.from(bytes)));
    bytes = [];
  };
  for (const token of tokens) {
    const [, digits] = /^<0x([0-9A-Fa-f]{2})>$/.exec(token) ?? [];
    if (digits !== undefined) bytes.push(parseInt(digits, 16));
    else {
      flush();
      texts.push(token);
    }
  }
  flush();
  return texts;
}
