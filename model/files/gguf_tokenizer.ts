/**
 * The tokenizer that a GGUF file's metadata describes, as a Hugging Face `tokenizer.json`.
 *
 * @module
 */
import type { GgufFile } from "./gguf_file.ts";

/** Kinds of tokens that are found in a text as a whole before it is split (tokenizer.ggml.token_type). */
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** What splits a text before byte pairs are merged, by tokenizer.ggml.pre. */
const SPLITS: Readonly<Record<string, { readonly pattern: string; readonly nfc: boolean; readonly bos: boolean }>> = {
  "llama-bpe": { pattern: splitPattern("{1,3}"), nfc: false, bos: true },
  qwen2: { pattern: splitPattern(""), nfc: true, bos: false },
};

/** Contractions, words with what leads them, runs of up to so many digits, punctuation, line breaks, spaces. */
function splitPattern(digits: string): string {
  return "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" + digits +
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
}

/** Builds `tokenizer.json`. @throws {SyntaxError} for a kind of tokenizer that isn't known, or lists that don't fit */
export function describeTokenizer(file: GgufFile): string {
  const { metadata, source: { name } } = file;
  const model = metadata["tokenizer.ggml.model"];
  switch (model) {
    case "gpt2":
      return JSON.stringify(describeBytePairs(file));
    case "llama":
      return JSON.stringify(describeSentencePieces(file));
    default:
      throw new SyntaxError(`${name}: tokenizer.ggml.model is ${JSON.stringify(model)}, must be gpt2 or llama`);
  }
}

/** Builds `tokenizer_config.json`: what starts and ends a text, and the chat template where there is one. */
export function describeTokenizerSettings({ metadata }: GgufFile): string {
  const tokens = metadata["tokenizer.ggml.tokens"];
  const token = (key: string) =>
    Array.isArray(tokens) ? tokens[Number(metadata[`tokenizer.ggml.${key}_token_id`])] : null;
  return JSON.stringify({
    bos_token: token("bos"),
    eos_token: token("eos"),
    add_bos_token: addsBos(metadata),
    chat_template: metadata["tokenizer.chat_template"],
  });
}

/** Whether BOS stands before a text: as the file says, or where it says nothing as this kind of tokenizer does. */
function addsBos(metadata: GgufFile["metadata"]): boolean {
  const isSentencePiece = metadata["tokenizer.ggml.model"] === "llama";
  const pre = String(metadata["tokenizer.ggml.pre"]);
  const byDefault = isSentencePiece || (Object.hasOwn(SPLITS, pre) && SPLITS[pre].bos);
  return Boolean(metadata["tokenizer.ggml.add_bos_token"] ?? byDefault);
}

function describeBytePairs(file: GgufFile): object {
  const { metadata, source: { name } } = file;
  const pre = String(metadata["tokenizer.ggml.pre"]);
  const split = Object.hasOwn(SPLITS, pre) ? SPLITS[pre] : undefined;
  if (!split) {
    throw new SyntaxError(
      `${name}: tokenizer.ggml.pre is ${JSON.stringify(pre)}, must be one of ${Object.keys(SPLITS).join(", ")}`,
    );
  }
  const tokens = textList(file, "tokens");
  return {
    version: "1.0",
    added_tokens: addedTokens(tokens, kinds(file, tokens.length), [CONTROL, USER_DEFINED]),
    normalizer: split.nfc ? { type: "NFC" } : null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: split.pattern }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: bosTemplate(file, tokens),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      vocab: vocabularyOf(name, tokens),
      merges: textList(file, "merges"),
      ignore_merges: pre === "llama-bpe",
    },
  };
}

function describeSentencePieces(file: GgufFile): object {
  const { metadata, source: { name } } = file;
  const tokens = textList(file, "tokens");
  const types = kinds(file, tokens.length);
  const vocab = vocabularyOf(name, tokens);
  const space = "\u2581";
  const prefix = metadata["tokenizer.ggml.add_space_prefix"] === false ? [] : [{ type: "Prepend", prepend: space }];
  return {
    version: "1.0",
    added_tokens: addedTokens(tokens, types, [UNKNOWN, CONTROL, USER_DEFINED]),
    normalizer: {
      type: "Sequence",
      normalizers: [...prefix, { type: "Replace", pattern: { String: " " }, content: space }],
    },
    pre_tokenizer: null,
    post_processor: bosTemplate(file, tokens),
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: space }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix.length > 0 ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      vocab,
      merges: mergesOf(tokens, vocab, numberList(file, "scores", tokens.length)),
      unk_token: tokens[types.indexOf(UNKNOWN)] ?? null,
      fuse_unk: true,
      byte_fallback: true,
    },
  };
}

/**
 * Merges that give what SentencePiece's scores give: each token from any two others, those of higher score first, as
 * Hugging Face's converter lists them.
 */
function mergesOf(
  tokens: readonly string[],
  vocab: Readonly<Record<string, number>>,
  scores: readonly number[],
): [string, string][] {
  const merges = tokens.flatMap((token, id) => {
    const symbols = Array.from(token);
    return symbols.slice(1).flatMap((_, i) => {
      const [left, right] = [symbols.slice(0, i + 1).join(""), symbols.slice(i + 1).join("")];
      return Object.hasOwn(vocab, left) && Object.hasOwn(vocab, right) ? [{ left, right, score: scores[id] }] : [];
    });
  });
  // Sorting is stable, so what has equal scores stays in the order of the vocabulary.
  return merges.sort((a, b) => b.score - a.score).map(({ left, right }) => [left, right]);
}

function addedTokens(tokens: readonly string[], types: readonly number[], added: readonly number[]): object[] {
  return tokens.flatMap((content, id) =>
    added.includes(types[id])
      ? [{
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: types[id] !== USER_DEFINED,
      }]
      : []
  );
}

function bosTemplate({ metadata, source }: GgufFile, tokens: readonly string[]): object | null {
  if (!addsBos(metadata)) return null;
  const id = Number(metadata["tokenizer.ggml.bos_token_id"]);
  const bos = tokens[id];
  if (bos === undefined) throw new SyntaxError(`${source.name}: tokenizer.ggml.bos_token_id is ${id}, must be a token`);
  return {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  };
}

function vocabularyOf(file: string, tokens: readonly string[]): Record<string, number> {
  // Without a prototype, so that a token named __proto__ is a key like any other.
  const vocab: Record<string, number> = Object.create(null);
  for (const [id, token] of tokens.entries()) {
    if (token in vocab) {
      throw new SyntaxError(`${file}: token ${JSON.stringify(token)} has ids ${vocab[token]} and ${id}`);
    }
    vocab[token] = id;
  }
  return vocab;
}

function textList({ metadata, source }: GgufFile, key: string): string[] {
  const value = metadata[`tokenizer.ggml.${key}`];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw new SyntaxError(`${source.name}: tokenizer.ggml.${key} is not a list of texts`);
  }
  return value;
}

function numberList({ metadata, source }: GgufFile, key: string, length: number): number[] {
  const value = metadata[`tokenizer.ggml.${key}`];
  if (!Array.isArray(value) || value.length !== length || !value.every((item) => Number.isFinite(item))) {
    throw new SyntaxError(`${source.name}: tokenizer.ggml.${key} is not a list of ${length} numbers`);
  }
  return value;
}

function kinds(file: GgufFile, length: number): number[] {
  return numberList(file, "token_type", length);
}
