// The tokenizer that a GGUF file's metadata describes, as a Hugging Face `tokenizer.json`.
import { quoteText } from "../host/quote_text.ts";
import { type GgufFile, headerJson } from "./gguf_file.ts";
import { GGUF_SPLITS } from "./gguf_splits.ts";

/** Kinds of tokens (tokenizer.ggml.token_type); all but normal ones are found in a text as a whole before it is split. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** Builds `tokenizer.json`. @throws {SyntaxError} for a kind of tokenizer that isn't known, or lists that don't fit */
export function describeTokenizer(file: GgufFile): string {
  const { metadata, source: { name } } = file;
  const model = metadata["tokenizer.ggml.model"];
  switch (model) {
    case "gpt2":
      return headerJson(describeBytePairs(file));
    case "llama":
      return headerJson(describeSentencePieces(file));
    default:
      throw new SyntaxError(`${name}: tokenizer.ggml.model is ${quoteText(model)}, must be gpt2 or llama`);
  }
}

/** Builds `tokenizer_config.json`: what starts and ends a text, and the chat template where there is one. */
export function describeTokenizerSettings({ metadata }: GgufFile): string {
  const { "tokenizer.ggml.tokens": tokens } = metadata;
  const named = ["bos", "eos", "eot", "eom", "unknown", "padding"].map((key) => {
    const id = metadata[`tokenizer.ggml.${key}_token_id`];
    const token: unknown = Array.isArray(tokens) && id !== undefined ? tokens[Number(id)] : undefined;
    return [`${SHORT_NAMES[key] ?? key}_token`, token ?? null] as const;
  });
  return headerJson({
    ...Object.fromEntries(named.filter(([key, token]) => token !== null || key === "bos_token" || key === "eos_token")),
    add_bos_token: addsBos(metadata),
    chat_template: metadata["tokenizer.chat_template"],
  });
}

/** Hugging Face's names of special tokens, where GGUF has others. */
const SHORT_NAMES: Readonly<Record<string, string>> = { unknown: "unk", padding: "pad" };

/** Whether BOS stands before a text: as the file says, or where it says nothing as this kind of tokenizer does. */
function addsBos(metadata: GgufFile["metadata"]): boolean {
  const pre = String(metadata["tokenizer.ggml.pre"]);
  const byDefault = metadata["tokenizer.ggml.model"] === "llama" ||
    (Object.hasOwn(GGUF_SPLITS, pre) && GGUF_SPLITS[pre].bos);
  return Boolean(metadata["tokenizer.ggml.add_bos_token"] ?? byDefault);
}

function describeBytePairs(file: GgufFile): object {
  const { metadata, source: { name } } = file;
  const pre = metadata["tokenizer.ggml.pre"];
  if (typeof pre !== "string" || !Object.hasOwn(GGUF_SPLITS, pre)) {
    throw new SyntaxError(
      `${name}: tokenizer.ggml.pre is ${
        quoteText(pre)
      }, must be one that is known (llama-bpe, qwen2, smollm, gpt-2, tekken, ` +
        "...): take the model's Hugging Face directory",
    );
  }
  const { patterns, nfc = false, ignoreMerges = false } = GGUF_SPLITS[pre];
  const splits = patterns.map((pattern) => (
    { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }
  ));
  const tokens = tokenList(file);
  const vocab = vocabularyOf(name, tokens);
  return {
    version: "1.0",
    added_tokens: addedTokens(tokens, kinds(file, tokens.length), [CONTROL, USER_DEFINED]),
    normalizer: nfc ? { type: "NFC" } : null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...splits,
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: bosTemplate(file, tokens),
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      vocab,
      // llama.cpp passes over merges to tokens that were emptied.
      merges: textList(file, "merges").filter((merge) => merge.split(" ").join("") in vocab),
      ignore_merges: ignoreMerges,
    },
  };
}

function describeSentencePieces(file: GgufFile): object {
  const { metadata, source: { name } } = file;
  const tokens = tokenList(file);
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
      throw new SyntaxError(`${file}: token ${quoteText(token)} has ids ${vocab[token]} and ${id}, must have one`);
    }
    vocab[token] = id;
  }
  return vocab;
}

/** Tokens by id; those without a text are called as llama.cpp calls them. */
function tokenList(file: GgufFile): string[] {
  return textList(file, "tokens").map((token, id) => token === "" ? `[EMPTY_${id}]` : token);
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

/** Kinds of tokens; all are normal where the file says nothing. */
function kinds(file: GgufFile, length: number): number[] {
  const isGiven = file.metadata["tokenizer.ggml.token_type"] !== undefined;
  return isGiven ? numberList(file, "token_type", length) : new Array(length).fill(NORMAL);
}
