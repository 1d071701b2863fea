import { createHash } from "node:crypto";
import type { GgufFile } from "../../../model/files/gguf_file.ts";
import { GGUF_SPLITS } from "../../../model/files/gguf_splits.ts";
import { describeTokenizer } from "../../../model/files/gguf_tokenizer.ts";
import { openGguf } from "../../../model/files/gguf_checkpoint.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { readPreTokenizer } from "../../../model/text/pre_tokenize.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { inDirectory } from "../../temporary.ts";

/** Made by Python's tokenizers 0.23 from published patterns (tests/fixtures/make_gguf_splits.py). */
interface Expected {
  readonly lines: readonly string[];
  /** By tokenizer.ggml.pre, 4 hexadecimal digits of the sha256 of each line's pieces, one after the other. */
  readonly digests: Readonly<Record<string, string>>;
}

const { lines, digests } = await readJson<Expected>("gguf_splits.json");
const known = await readJson<{ readonly lines: readonly (readonly [line: string])[] }>("tokenizer_lines.json");

interface Described {
  readonly pre_tokenizer: unknown;
  readonly added_tokens: readonly object[];
  readonly model: { readonly vocab: object; readonly merges: readonly string[] };
}

/** tokenizer.json of a GGUF file with this tokenizer.ggml.pre. */
function describe(pre: unknown, more: object = {}): Described {
  const metadata = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": pre,
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.bos_token_id": 0,
    ...more,
  };
  return JSON.parse(describeTokenizer({ metadata, source: { name: "f.gguf" } } as unknown as GgufFile));
}

for (const [pre, digest] of Object.entries(digests)) {
  Deno.test(`describeTokenizer: ${pre} cuts about 2,500 lines where the tokenizer of its models does`, () => {
    const cut = readPreTokenizer("t", describe(pre).pre_tokenizer);
    // A half of a pair is U+FFFD, as in UTF-8; Python's program has a question mark.
    const all = [...known.lines.map(([line]) => line.replace(/\p{Cs}/gu, "?")), ...lines];
    assertEquals(4 * all.length, digest.length);
    for (const [i, line] of all.entries()) {
      const found = createHash("sha256").update(cut(line === "" ? [] : [line], true).join("\0")).digest("hex").slice(
        0,
        4,
      );
      assertEquals(found, digest.slice(4 * i, 4 * i + 4), JSON.stringify(line));
    }
  });
}

Deno.test("describeTokenizer: names that share their pieces with those above, and no other", () => {
  const patterns = (pre: string) => GGUF_SPLITS[pre].patterns.join();
  const checked = new Set(Object.keys(digests).map(patterns));
  for (const pre of Object.keys(GGUF_SPLITS)) assert(checked.has(patterns(pre)), pre);
});

Deno.test("describeTokenizer: an unknown name is refused and says how to go on", () => {
  for (const pre of ["somebody's", undefined, 7]) {
    const { message } = assertThrows(() => describe(pre), SyntaxError, "take the model's Hugging Face directory");
    assert(
      message.startsWith(`f.gguf: tokenizer.ggml.pre is ${JSON.stringify(pre)}, must be one that is known`),
      message,
    );
  }
});

Deno.test("describeTokenizer: empty tokens have llama.cpp's names, and merges to them are passed over", () => {
  const { model } = describe("qwen2", {
    "tokenizer.ggml.tokens": ["a", "b", "", "ab", ""],
    "tokenizer.ggml.merges": ["a b", "b a"],
  });
  assertEquals(model.vocab, { a: 0, b: 1, "[EMPTY_2]": 2, ab: 3, "[EMPTY_4]": 4 });
  assertEquals(model.merges, ["a b"]);
  assertThrows(
    () => describe("qwen2", { "tokenizer.ggml.tokens": ["a", "b", "a"] }),
    SyntaxError,
    'f.gguf: token "a" has ids 0 and 2, must have one',
  );
});

Deno.test("describeTokenizer: without token types all tokens are normal", () => {
  assertEquals(describe("qwen2").added_tokens, []);
  const types = { "tokenizer.ggml.token_type": [1, 3] };
  assertEquals(describe("qwen2", types).added_tokens.length, 1);
});

Deno.test("openGguf: tokens keep the byte order mark with which they start", () =>
  inDirectory(async (directory) => {
    const bytes = await Deno.readFile(new URL("../../fixtures/gguf/llama_spm.gguf", import.meta.url));
    // A token of three bytes is made U+FEFF: length 3 as 64 bits, and the text.
    const wanted = [3, 0, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode("ght")];
    const at = bytes.findIndex((_, i) => wanted.every((byte, k) => bytes[i + k] === byte));
    assert(at > 0);
    bytes.set([0xef, 0xbb, 0xbf], at + 8);
    await Deno.writeFile(`${directory}/f.gguf`, bytes);
    using checkpoint = await openGguf(`${directory}/f.gguf`);
    const { model } = JSON.parse((await checkpoint.readText("tokenizer.json"))!) as Described;
    const id = (model.vocab as Readonly<Record<string, number>>)["\ufeff"];
    assert(id > 0);
    assertEquals((await readTokenizer(checkpoint)).decode([id]), "\ufeff");
  }));
