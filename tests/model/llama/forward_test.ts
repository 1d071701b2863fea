import { readModel } from "../../../model/files/checkpoint.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import type { MatMul } from "../../../model/llama/matmul.ts";
import { matmulPlain } from "./matmul_plain.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { assertClose, assertRejects, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

/** Tokens and logits computed by Hugging Face transformers in f32 (tests/fixtures/make_llama.py). */
interface Expected {
  readonly tokens: number[];
  readonly positions: number[];
  readonly logits: number[][];
}

async function loadFixture(name: string) {
  using checkpoint = await openDirectory(FIXTURES + name);
  const expected = await readJson<Expected>(`${name}/expected.json`);
  return { model: await readModel(checkpoint), expected };
}

const PRODUCTS: readonly (readonly [string, () => Promise<MatMul>])[] = [
  ["plain", () => Promise.resolve(matmulPlain)],
  ["simd", createMatmulSimd],
];

for (const name of ["llama_tied_gqa", "llama3_scaled_bias"]) {
  for (const [product, create] of PRODUCTS) {
    Deno.test(`forward: ${name} agrees with Hugging Face transformers, ${product} products`, async () => {
      const { model, expected } = await loadFixture(name);
      const matmul = await create();
      const { hidden } = forward(model, [{ tokens: Uint32Array.from(expected.tokens) }], matmul);
      const logits = logitsOf(model, hidden, matmul);
      for (const [i, position] of expected.positions.entries()) {
        const row = logits.subarray(position * model.config.vocabulary, (position + 1) * model.config.vocabulary);
        assertClose(row, expected.logits[i], 2e-4);
      }
    });
  }
}

Deno.test("forward: segments with a shared prefix give what whole sequences give", async () => {
  const { model, expected } = await loadFixture("llama_tied_gqa");
  const width = model.config.hidden;
  const tokens = Uint32Array.from(expected.tokens);
  const ends = [Uint32Array.from([5, 9, 11]), Uint32Array.from([90])];
  const prefix = tokens.subarray(0, 50);
  const { cache } = forward(model, [{ tokens: prefix }], matmulPlain);
  const { hidden } = forward(model, ends.map((tokens) => ({ tokens, prefix: cache[0] })), matmulPlain);
  let at = 0;
  for (const end of ends) {
    const whole = forward(model, [{ tokens: Uint32Array.from([...prefix, ...end]) }], matmulPlain).hidden;
    assertClose(hidden.subarray(at * width, (at + end.length) * width), whole.subarray(50 * width), 1e-5);
    at += end.length;
  }
});

Deno.test("forward: refuses tokens outside the vocabulary and sequences longer than the context", async () => {
  const { model } = await loadFixture("llama_tied_gqa");
  assertThrows(
    () => forward(model, [{ tokens: Uint32Array.from([96]) }], matmulPlain),
    RangeError,
    "token is 96, must be below 96",
  );
  assertThrows(
    () => forward(model, [{ tokens: new Uint32Array(257) }], matmulPlain),
    RangeError,
    "sequence has 257 tokens, must have at most 256",
  );
});

Deno.test("openDirectory: names what a model directory lacks", async () => {
  const directory = await Deno.makeTempDir();
  await assertRejects(() => openDirectory(directory), SyntaxError, "has no config.json");
  const config = JSON.parse(await Deno.readTextFile(`${FIXTURES}llama_tied_gqa/config.json`));
  const write = (changes: object) =>
    Deno.writeTextFile(`${directory}/config.json`, JSON.stringify({ ...config, ...changes }));
  await write({});
  await assertRejects(() => openDirectory(directory), SyntaxError, "neither model.safetensors nor");
  await write({ architectures: ["GPT2LMHeadModel"] });
  await assertRejects(
    () => openDirectory(directory),
    SyntaxError,
    'architecture "GPT2LMHeadModel" is not supported, must be one of LlamaForCausalLM',
  );
  await write({ num_hidden_layers: -1 });
  await assertRejects(() => openDirectory(directory), SyntaxError, "num_hidden_layers is -1, must be an integer");
  await write({ rope_parameters: { rope_type: "axial" } });
  await assertRejects(() => openDirectory(directory), SyntaxError, 'rope_type is "axial", must be default, linear');
  await Deno.remove(directory, { recursive: true });
});
