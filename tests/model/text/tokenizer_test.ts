import { createHash } from "node:crypto";
import { loadModel } from "../../../model/load.ts";
import { loadText } from "../../../model/text/text.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** A line, its tokens, and the decoded text where that isn't the line. */
type Row = readonly [line: string, ids: number[], decoded: string | null];

/** Made by Python's tokenizers 0.23 (tests/fixtures/make_tokenizer_lines.py). */
interface Expected {
  readonly lines: Row[];
  /** By text, 4 hexadecimal digits of the sha256 of each sentence's tokens, one after the other. */
  readonly sentences: Readonly<Record<"sotu" | "moby", string>>;
}

const { lines, sentences } = await readJson<Expected>("tokenizer_lines.json");

const { tokenizer } = await loadModel("tiny");

Deno.test("readTokenizer: about 1,400 lines have the tokens that Python's tokenizers give them", () => {
  assert(lines.length > 1400);
  for (const [line, ids] of lines) {
    assertEquals(Array.from(tokenizer.encode(line)), ids, `tokens of ${JSON.stringify(line)}`);
  }
});

Deno.test("readTokenizer: tokens decode to the text that Python's tokenizers give, special tokens left out", () => {
  for (const [line, ids, decoded] of lines) {
    assertEquals(tokenizer.decode(ids), decoded ?? line, `text of the tokens of ${JSON.stringify(line)}`);
  }
});

for (const name of ["sotu", "moby"] as const) {
  Deno.test(`readTokenizer: every sentence of ${name} has the tokens that Python's tokenizers give it`, async () => {
    const { documents } = await loadText(name);
    const parts = documents.flatMap((text) => text.split(/(?<=[.;:?!])(?= )|\n+/)).filter((part) => part !== "");
    assertEquals(parts.length, sentences[name].length / 4);
    for (const [i, part] of parts.entries()) {
      const ids = tokenizer.encode(part);
      const digest = createHash("sha256").update(ids.join(",")).digest("hex").slice(0, 4);
      assertEquals(digest, sentences[name].slice(4 * i, 4 * i + 4), `tokens of ${JSON.stringify(part)}`);
      assertEquals(tokenizer.decode(ids), part);
    }
  });
}

Deno.test("readTokenizer: without settings, spaces before punctuation stay, as in Python's tokenizers", async () => {
  const folder = new URL("../../../model/tiny/", import.meta.url);
  const readText = async (file: string) =>
    file === "tokenizer.json" ? await Deno.readTextFile(new URL(file, folder)) : undefined;
  const { encode, decode } = await readTokenizer({ name: "tiny", readText });
  const line = "We do n't know , it 's ' a ' b ? c : d ! You 've n't . They 're . I 'm .";
  assertEquals(decode(encode(line)), line);
});

/** Makes a model directory from a fixture and the given text of tokenizer.json. */
async function withTokenizer(text: string | undefined, use: (directory: string) => Promise<unknown>): Promise<void> {
  const directory = await Deno.makeTempDir();
  for (const file of ["config.json", "model.safetensors"]) {
    await Deno.copyFile(new URL(`../../fixtures/llama_tied_gqa/${file}`, import.meta.url), `${directory}/${file}`);
  }
  if (text !== undefined) await Deno.writeTextFile(`${directory}/tokenizer.json`, text);
  await use(directory);
  await Deno.remove(directory, { recursive: true });
}

for (
  const [what, text, message] of [
    ["is missing", undefined, "has no tokenizer.json"],
    ["isn't JSON", "{", "tokenizer.json is not valid JSON"],
    ["isn't an object", "[]", "must be a JSON object"],
    ["has no model", "{}", "tokenizer.json: model is undefined, must be a JSON object"],
  ] as const
) {
  Deno.test(`loadModel: a tokenizer.json that ${what} is refused`, async () => {
    await withTokenizer(text, (directory) => assertRejects(() => loadModel(directory), SyntaxError, message));
  });
}

Deno.test("loadModel: a tokenizer with more tokens than the model is refused", async () => {
  const text = await Deno.readTextFile(new URL("../../../model/tiny/tokenizer.json", import.meta.url));
  await withTokenizer(text, (directory) =>
    assertRejects(
      () => loadModel(directory),
      SyntaxError,
      `${directory}: the tokenizer has 4096 tokens, must have at most the model's 96`,
    ));
});
