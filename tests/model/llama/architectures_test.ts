import { readModel } from "../../../model/files/checkpoint.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { parseConfig } from "../../../model/llama/config.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { writeHuggingFaceDirectory } from "../../../model/files/huggingface_writer.ts";
import type { Model } from "../../../model/llama/llama.ts";
import { matmulPlain } from "../../../model/llama/matmul.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { twobitQuantizer } from "../../../quant/recipe.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertClose, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { inDirectory } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

const NAMES = ["mistral_window", "qwen2_tied", "qwen3_wide_heads"];

/** Tokens and logits computed by Hugging Face transformers in f32 (tests/fixtures/make_architectures.py). */
interface Expected {
  readonly tokens: number[];
  readonly positions: number[];
  readonly logits: number[][];
}

async function loadFixture(name: string): Promise<{ model: Model; expected: Expected }> {
  using checkpoint = await openDirectory(FIXTURES + name);
  const expected = await readJson<Expected>(`${name}/expected.json`);
  return { model: await readModel(checkpoint), expected };
}

function logitsAt(model: Model, tokens: readonly number[], position: number): Float32Array {
  const { hidden: width } = model.config;
  const { hidden } = forward(model, [{ tokens: Uint32Array.from(tokens) }], matmulPlain);
  return logitsOf(model, hidden.subarray(position * width, (position + 1) * width), matmulPlain);
}

for (const name of NAMES) {
  Deno.test(`forward: ${name} agrees with Hugging Face transformers`, async () => {
    const { model, expected } = await loadFixture(name);
    for (const [i, position] of expected.positions.entries()) {
      assertClose(logitsAt(model, expected.tokens, position), expected.logits[i], 2e-4);
    }
  });

  Deno.test(`forward: ${name} in two segments gives what it gives in one`, async () => {
    const { model, expected: { tokens } } = await loadFixture(name);
    const width = model.config.hidden;
    const [start, end] = [Uint32Array.from(tokens.slice(0, 60)), Uint32Array.from(tokens.slice(60, 90))];
    const { cache } = forward(model, [{ tokens: start }], matmulPlain);
    const { hidden } = forward(model, [{ tokens: end, prefix: cache[0] }], matmulPlain);
    const whole = forward(model, [{ tokens: Uint32Array.from(tokens.slice(0, 90)) }], matmulPlain).hidden;
    assertClose(hidden, whole.subarray(60 * width), 1e-5);
  });

  Deno.test(`quantize: ${name} goes through a packed file and back to a directory with its biases and norms`, () =>
    inDirectory(async (directory) => {
      const path = `${directory}/q.safetensors`;
      const random = createRandom(1);
      const calibration = [Uint32Array.from({ length: 64 }, () => random.integer(96))];
      using source = await openDirectory(FIXTURES + name);
      using pool = createCpuPool(2);
      await writePackedFile(
        pool,
        source,
        packPlan(path, { calibration, correctTarget: true, quantizerOf: () => twobitQuantizer() }),
      );
      using packed = await openPacked(path);
      assertEquals(packed.packed.size, 14);
      const [original, quantized] = [await readModel(source), await readModel(packed)];
      for (const [i, { linears, queryNorm, keyNorm }] of quantized.layers.entries()) {
        const before = original.layers[i];
        assertEquals([queryNorm, keyNorm], [before.queryNorm, before.keyNorm]);
        assertEquals(linears.q_proj.bias, before.linears.q_proj.bias);
        assert(linears.q_proj.weights.some((weight, k) => weight !== before.linears.q_proj.weights[k]));
      }
      await writeHuggingFaceDirectory(packed, `${directory}/f16`);
      using written = await openDirectory(`${directory}/f16`);
      const back = await readModel(written);
      assertEquals(back.config, quantized.config);
      const tokens = [...calibration[0]];
      // f16 keeps 11 bits of each weight.
      assertClose(logitsAt(back, tokens, 63), logitsAt(quantized, tokens, 63), 0.02);
    }));
}

Deno.test("openDirectory: biases and norms are where config.json says", async () => {
  const { layers: [qwen2] } = (await loadFixture("qwen2_tied")).model;
  assertEquals(Object.values(qwen2.linears).map(({ bias }) => bias?.length), [64, 32, 32, ...Array(4).fill(undefined)]);
  assertEquals(qwen2.queryNorm, undefined);
  const { layers: [qwen3] } = (await loadFixture("qwen3_wide_heads")).model;
  assertEquals([qwen3.queryNorm?.length, qwen3.keyNorm?.length, qwen3.linears.q_proj.bias], [32, 32, undefined]);
});

Deno.test("openDirectory: a bias that config.json doesn't speak of is refused", () =>
  inDirectory(async (directory) => {
    await Deno.copyFile(`${FIXTURES}qwen2_tied/model.safetensors`, `${directory}/model.safetensors`);
    const config = JSON.parse(await Deno.readTextFile(`${FIXTURES}qwen2_tied/config.json`));
    await Deno.writeTextFile(
      `${directory}/config.json`,
      JSON.stringify({ ...config, architectures: ["MistralForCausalLM"] }),
    );
    using checkpoint = await openDirectory(directory);
    await assertRejects(() => readModel(checkpoint), SyntaxError, "q_proj.bias, must not by its config.json (Mistral");
  }));

Deno.test("parseConfig: sliding windows and document tokens of each architecture, and what is refused", async () => {
  const fields = JSON.parse(await Deno.readTextFile(`${FIXTURES}mistral_window/config.json`));
  const parse = (changes: object) => parseConfig("config.json", JSON.stringify({ ...fields, ...changes }));
  assertEquals(parse({}).slidingWindow, 24);
  assertEquals(parse({ sliding_window: null }).slidingWindow, undefined);
  // MistralConfig's own default, which old files rely on.
  assertEquals(parse({ sliding_window: undefined }).slidingWindow, 4096);
  const qwen = { architectures: ["Qwen2ForCausalLM"] };
  // Qwen2 states a window that it doesn't use.
  assertEquals(parse(qwen).slidingWindow, undefined);
  assertThrows(
    () => parse({ ...qwen, use_sliding_window: true }),
    SyntaxError,
    "use_sliding_window is true, must be false",
  );
  assertThrows(
    () => parse({ ...qwen, layer_types: ["full_attention", "sliding_attention"] }),
    SyntaxError,
    'layer_types has "sliding_attention", must be full_attention',
  );
  // What starts and ends a text is the tokenizer's business.
  assertEquals(parse({ ...qwen, bos_token_id: null, eos_token_id: null }).architecture, "Qwen2ForCausalLM");
});
