// What splits a text before byte pairs are merged, by the name in a GGUF file's tokenizer.ggml.pre: llama.cpp's list of
// those that models of the architectures here have, with the expressions of the tokenizers that they were made from.

/** How a named tokenizer splits, and what it does where the file says nothing. */
export interface GgufSplit {
  /** Regular expressions that cut one after the other. */
  readonly patterns: readonly string[];
  /** Whether texts are normalized to NFC. */
  readonly nfc?: boolean;
  /** Whether BOS stands before a text. */
  readonly bos?: boolean;
  /** Whether a piece that is a token isn't merged. */
  readonly ignoreMerges?: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Contractions, words with what leads them, runs of up to so many digits, punctuation, line breaks, spaces. */
function wordsAndDigits(digits: string): string {
  return `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
}

/** The same, but words are cut before a capital that follows a small letter; `end` may follow a word. */
function casedWords(end: string, digits: string): string {
  const [upper, lower] = ["[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"];
  const lead = "[^\\r\\n\\p{L}\\p{N}]?";
  return `${lead}${upper}*${lower}+${end}|${lead}${upper}+${lower}*${end}|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const LLAMA3: GgufSplit = { patterns: [wordsAndDigits("{1,3}")], bos: true, ignoreMerges: true };
const QWEN2: GgufSplit = { patterns: [wordsAndDigits("")], nfc: true };
const PLAIN: GgufSplit = { patterns: [GPT2] };
const SINGLE_DIGITS: GgufSplit = { patterns: ["\\p{N}", GPT2] };
const GPT4: GgufSplit = { patterns: [wordsAndDigits("{1,3}")] };
const GPT4O: GgufSplit = { patterns: [casedWords(`${CONTRACTIONS}?`, "{1,3}")] };

/** By tokenizer.ggml.pre. */
export const GGUF_SPLITS: Readonly<Record<string, GgufSplit>> = {
  "llama-bpe": LLAMA3,
  "llama3": LLAMA3,
  "llama-v3": LLAMA3,
  "falcon3": LLAMA3,
  "pixtral": LLAMA3,
  "midm-2.0": LLAMA3,
  "qwen2": QWEN2,
  "deepseek-r1-qwen": QWEN2,
  "smollm": SINGLE_DIGITS,
  "starcoder": SINGLE_DIGITS,
  "refact": SINGLE_DIGITS,
  "codeshell": SINGLE_DIGITS,
  "minerva-7b": SINGLE_DIGITS,
  "gpt-2": PLAIN,
  "phi-2": PLAIN,
  "olmo": PLAIN,
  "mpt": PLAIN,
  "dbrx": GPT4, // Phi-4
  "smaug-bpe": GPT4,
  "glm4": GPT4,
  "chatglm-bpe": GPT4,
  "gpt-4o": GPT4O,
  "kanana2": GPT4O,
  "tekken": { patterns: [casedWords("", "")], bos: true, ignoreMerges: true },
  "seed-coder": {
    patterns: [`${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`],
  },
  "deepseek-coder": {
    patterns: ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}"],
  },
  "deepseek-v3": {
    patterns: [
      "\\p{N}{1,3}",
      "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" +
      SPACES,
    ],
  },
};
