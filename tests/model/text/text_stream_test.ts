import { loadModel, openModel } from "../../../model/load.ts";
import { createTextStream } from "../../../model/text/text_stream.ts";
import { readTokenizer, type Tokenizer } from "../../../model/text/tokenizer.ts";
import { createRandom, type Random } from "../../../quant/random.ts";
import { assert, assertEquals } from "../../assert.ts";

async function readGgufTokenizer(name: string): Promise<Tokenizer> {
  using checkpoint = await openModel(new URL(`../../fixtures/gguf/${name}.gguf`, import.meta.url).pathname);
  return await readTokenizer(checkpoint);
}

const TOKENIZERS: Readonly<Record<string, Tokenizer>> = {
  tiny: (await loadModel("tiny")).tokenizer,
  llama_spm: await readGgufTokenizer("llama_spm"),
  llama_bpe: await readGgufTokenizer("llama_bpe"),
  qwen2: await readGgufTokenizer("qwen2"),
};

/** Characters of 1 to 4 bytes, joined ones, and what a clean-up of spaces would change. */
const PIECES = [
  "it's",
  " don't",
  " ,",
  " .",
  " ?",
  "h\u00e9llo",
  " \u6f22\u5b57",
  "\u{1f642}",
  " \n",
  "  ",
  " n't",
  " 's",
]
  .concat("\u{1f469}\u200d\u{1f467}", "\ufffd", "\ufeff", "!", "a");

function randomTokens(tokenizer: Tokenizer, kind: string, random: Random): number[] {
  const length = 1 + random.integer(400);
  if (kind === "any") return Array.from({ length }, () => random.integer(tokenizer.vocabulary));
  const text = Array.from({ length: 1 + length / 4 }, () => PIECES[random.integer(PIECES.length)]).join("");
  const tokens = Array.from(tokenizer.encode(text));
  if (kind === "text") return tokens;
  // Special tokens, which have no text, between the others, in runs longer than what a stream keeps.
  return tokens.flatMap((token) =>
    random.integer(20) > 0 ? [token] : [...new Array(random.integer(200)).fill(tokenizer.prefix[0] ?? 0), token]
  );
}

/** Pushes tokens in batches of random sizes. */
function streamed(tokenizer: Tokenizer, tokens: readonly number[], largestBatch: number, random: Random): string {
  const stream = createTextStream(tokenizer);
  let text = "";
  for (let first = 0; first < tokens.length;) {
    const end = first + 1 + random.integer(largestBatch);
    text += stream.push(tokens.slice(first, end));
    first = end;
  }
  return text + stream.finish();
}

for (const [name, tokenizer] of Object.entries(TOKENIZERS)) {
  for (const kind of ["text", "any", "with special tokens"]) {
    Deno.test(`createTextStream: the pieces join to the whole text: ${name}, tokens: ${kind}`, () => {
      for (let seed = 0; seed < 20; seed++) {
        const random = createRandom(seed);
        const tokens = randomTokens(tokenizer, kind, random);
        const largestBatch = [1, 3, 64, 300][seed % 4];
        assertEquals(streamed(tokenizer, tokens, largestBatch, random), tokenizer.decode(tokens), `seed ${seed}`);
      }
    });
  }
}

Deno.test("createTextStream: no piece holds part of a character, and bytes that make none don't stop the text", () => {
  const tokenizer = TOKENIZERS.llama_bpe;
  const [first, ...rest] = tokenizer.encode("\u{1f642}");
  const stream = createTextStream(tokenizer);
  assertEquals(stream.push([first]), "");
  assert(rest.length > 1, "several tokens make the character");
  const pieces = rest.map((token) => stream.push([token]));
  assertEquals(pieces, [...new Array(rest.length - 1).fill(""), "\u{1f642}"]);
  assertEquals(stream.push([first, first, first]), "\ufffd\ufffd");
  assertEquals(stream.finish(), "\ufffd");
});

Deno.test("createTextStream: a decoder that changes earlier text loses none of the later", () => {
  const texts = ["", "do", "do n", "don't", "don't know"];
  const stream = createTextStream({ ...TOKENIZERS.tiny, decode: (tokens) => texts[tokens.length] });
  assertEquals([1, 1, 1, 1].map((token) => stream.push([token])), ["do", " n", "n't", " know"]);
});
