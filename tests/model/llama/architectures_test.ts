import { readModel, tensorToWrite } from "../../../model/files/checkpoint.ts";
import { openDirectory, openSafetensors } from "../../../model/files/open_directory.ts";
import { DTYPE_BYTES, readTensorBytes, tensorInfo } from "../../../model/files/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { toOwnLayout } from "../../../model/files/tensor_layout.ts";
import { parseConfig } from "../../../model/llama/config.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { writeHuggingFaceDirectory } from "../../../model/files/huggingface_writer.ts";
import { layerTensors, type LinearKind } from "../../../model/llama/layer.ts";
import type { Model } from "../../../model/llama/llama.ts";
import { matmulPlain } from "./matmul_plain.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { SETTINGS, twobitQuantizer } from "../../../quant/recipe.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertAlmostEquals, assertClose, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { inDirectory } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

/** Architectures whose tensors are fused, or whose heads rotate in part. */
const OTHER_LAYOUTS = ["glm_partial", "phi3_fused", "phi3_partial_window"];
const SCALED = ["llama_linear", "llama_dynamic", "qwen2_yarn", "phi3_longrope"];
const NAMES = ["mistral_window", "qwen2_tied", "qwen3_wide_heads", ...OTHER_LAYOUTS, ...SCALED];

/** What Hugging Face transformers computes in f32, and slices of its tensors (tests/fixtures/make_architectures.py). */
interface Expected {
  readonly tokens: number[];
  readonly positions: number[];
  readonly logits: number[][];
  /** Shape, first and last column of each tensor of layer 1, in the layout that everything but files knows. */
  readonly standard?: Record<string, { readonly shape: number[]; readonly first: number[]; readonly last: number[] }>;
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

/** Name and shape of each tensor in a directory's file, sorted by name. */
async function describeTensors(directory: string): Promise<string[]> {
  const { source, tensors } = await openSafetensors(`${directory}/model.safetensors`);
  using _source = source;
  return Array.from(tensors.values(), ({ name, shape }) => `${name} ${shape}`).sort();
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
        cpuDevice(pool),
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
      assertEquals(await describeTensors(`${directory}/f16`), await describeTensors(FIXTURES + name));
      const rounded = quantized.layers.map(({ linears }) => linears.q_proj.weights.map(Math.f16round));
      assertEquals(back.layers.map(({ linears }) => linears.q_proj.weights), rounded);
      const tokens = [...calibration[0]];
      // f16 keeps 11 bits of each weight.
      assertClose(logitsAt(back, tokens, 63), logitsAt(quantized, tokens, 63), 0.02);
    }));
}

/** Writes a fixture with changes of its configuration and more tensors. */
async function writeChanged(
  directory: string,
  name: string,
  changes: object,
  more: (tensors: readonly TensorToWrite[]) => TensorToWrite[] = () => [],
): Promise<void> {
  const config = JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}/config.json`));
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify({ ...config, ...changes }));
  const file = await openSafetensors(`${FIXTURES}${name}/model.safetensors`);
  using _source = file.source;
  const tensors = Array.from(file.tensors.values(), (info) => tensorToWrite({ file, info }));
  await writeSafetensors(`${directory}/model.safetensors`, [...tensors, ...more(tensors)]);
}

const scalar = (name: string, dtype: TensorToWrite["dtype"]): TensorToWrite => ({
  name,
  dtype,
  shape: [1],
  bytes: () => new Uint8Array(DTYPE_BYTES[dtype]),
});

Deno.test("openDirectory: a head of its own counts though embeddings are tied, also packed and written back", () =>
  inDirectory(async (directory) => {
    // The head is minus the embedding, so logits are minus those of the tied model.
    const negated = (tensors: readonly TensorToWrite[]) => {
      const embedding = tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
      const bytes = async () => (await embedding.bytes()).map((byte, i) => i % 2 === 1 ? byte ^ 0x80 : byte);
      return [{ ...embedding, name: "lm_head.weight", bytes }];
    };
    await writeChanged(directory, "qwen2_tied", {}, negated);
    const { model, expected } = await loadFixture("qwen2_tied");
    using source = await openDirectory(directory);
    const [position] = expected.positions;
    const logits = logitsAt(await readModel(source), expected.tokens, position);
    assertEquals(logits, logitsAt(model, expected.tokens, position).map((logit) => -logit));
    using pool = createCpuPool(2);
    await writePackedFile(
      cpuDevice(pool),
      source,
      packPlan(`${directory}/q`),
    );
    using packed = await openPacked(`${directory}/q`);
    await writeHuggingFaceDirectory(packed, `${directory}/back`);
    using back = await openDirectory(`${directory}/back`);
    for (const { config } of [source, packed, back]) assertEquals(config.tiedHead, false);
  }));

Deno.test("openDirectory: tensors that change nothing may be there, any other of a layer is refused", () =>
  inDirectory(async (directory) => {
    const buffers = [
      scalar("model.layers.0.self_attn.rotary_emb.position_ids", "I64"),
      scalar("model.layers.0.self_attn.rotary_emb.inv_freq", "F32"),
      scalar("model.layers.0.note", "U8"),
      scalar("model.mask", "BOOL"),
      scalar("model.layers.99.mlp.gate_proj.weight_scale", "F8_E4M3"),
    ];
    await writeChanged(directory, "qwen2_tied", {}, () => buffers);
    {
      using source = await openDirectory(directory);
      using pool = createCpuPool(2);
      await writePackedFile(
        cpuDevice(pool),
        source,
        packPlan(`${directory}/q`),
      );
      using packed = await openPacked(`${directory}/q`);
      await writeHuggingFaceDirectory(packed, `${directory}/back`);
      using back = await openDirectory(`${directory}/back`);
      assert(back.has("model.layers.0.note"));
    }
    const layer = [
      "self_attn.o_proj.bias",
      "mlp.up_proj.bias",
      "mlp.up_proj.weight_scale",
      "pre_feedforward_norm.weight",
    ];
    for (const name of [...layer.map((part) => `model.layers.1.${part}`), "model.norm.bias", "lm_head.bias"]) {
      await writeChanged(directory, "qwen2_tied", {}, () => [scalar(name, "F16")]);
      await assertRejects(() => openDirectory(directory), SyntaxError, `${directory} has ${name}, must not`);
    }
  }));

Deno.test("parseConfig: of two scalings of RoPE the older key counts, as in transformers", () =>
  inDirectory(async (directory) => {
    const rope_parameters = { rope_type: "default", rope_theta: 5000 };
    const opened = async (changes: object) => {
      await writeChanged(directory, "qwen2_tied", { rope_parameters, rope_theta: undefined, ...changes });
      using checkpoint = await openDirectory(directory);
      return checkpoint.config.rope.theta;
    };
    for (const rope_scaling of [null, {}, undefined]) assertEquals(await opened({ rope_scaling }), 5000);
    assertEquals(await opened({ rope_scaling: { rope_type: "default", rope_theta: 7000 } }), 7000);
    await assertRejects(() => opened({ rope_scaling: { rope_type: "mrope", factor: 4 } }), SyntaxError, 'is "mrope"');
    await assertRejects(() => opened({ rope_scaling: { type: "axial", factor: 4 } }), SyntaxError, 'is "axial"');
  }));

Deno.test("parseConfig: layer_types must say what every layer does", () =>
  inDirectory(async (directory) => {
    const opened = async (changes: object) => {
      await writeChanged(directory, "mistral_window", changes);
      using checkpoint = await openDirectory(directory);
      return checkpoint.config.slidingWindow;
    };
    const [sliding, full] = ["sliding_attention", "full_attention"];
    assertEquals(await opened({ sliding_window: 16, layer_types: [sliding, sliding] }), 16);
    assertEquals(await opened({ sliding_window: null, layer_types: [full, full] }), undefined);
    const refused = (changes: object, message: string) =>
      assertRejects(() => opened(changes), SyntaxError, `config.json: layer_types has ${message}`);
    await refused({ sliding_window: 16, layer_types: [full, sliding] }, '"full_attention", must be sliding_attention');
    await refused(
      { sliding_window: null, layer_types: [full, sliding] },
      '"sliding_attention", must be full_attention',
    );
  }));

for (const name of OTHER_LAYOUTS) {
  Deno.test(`openDirectory: tensors of ${name} are split, and heads reordered, as slices of the file say`, async () => {
    using checkpoint = await openDirectory(FIXTURES + name);
    const { standard } = await readJson<Expected>(`${name}/expected.json`);
    const names = layerTensors(checkpoint.config, 1).map(({ name }) => name);
    assertEquals(names.toSorted(), Object.keys(standard!).sort());
    for (const [tensor, { shape, first, last }] of Object.entries(standard!)) {
      const values = await checkpoint.read(tensor, shape);
      const width = values.length / shape[0];
      assertEquals(Array.from(first, (_, row) => values[row * width]), first, tensor);
      assertEquals(Array.from(last, (_, row) => values[row * width + width - 1]), last, tensor);
    }
  });

  Deno.test(`toOwnLayout: gives the tensors of ${name} as its file has them, bit by bit`, async () => {
    using checkpoint = await openDirectory(FIXTURES + name);
    const file = await openSafetensors(`${FIXTURES}${name}/model.safetensors`);
    using _source = file.source;
    const own = toOwnLayout(checkpoint.config, checkpoint.tensors);
    assertEquals(own.map(({ name }) => name).sort(), [...file.tensors.keys()].sort());
    for (const { name, dtype, shape, bytes } of own) {
      const info = tensorInfo(file, name);
      assertEquals([dtype, shape], [info.dtype, info.shape]);
      assertEquals(await bytes(), await readTensorBytes(file, info), name);
    }
    const up = "model.layers.1.mlp.up_proj.weight";
    const without = checkpoint.tensors.filter(({ name }) => name !== up);
    assertThrows(() => toOwnLayout(checkpoint.config, without), SyntaxError, `no tensor ${up}, must be there`);
  });

  // That transformers computes with what is written what the engine computes: tests/fixtures/make_random_model.py.
  Deno.test(`dequantize: ${name} becomes one tensor again where only some of its parts were packed`, () =>
    inDirectory(async (directory) => {
      const path = `${directory}/q.safetensors`;
      using source = await openDirectory(FIXTURES + name);
      using pool = createCpuPool(1);
      const quantizerOf = (layer: number, kind: LinearKind) =>
        layer === 1 || kind === "q_proj" || kind === "up_proj"
          ? { kind: "twobit" as const, settings: SETTINGS }
          : undefined;
      await writePackedFile(cpuDevice(pool), source, packPlan(path, { quantizerOf }));
      using packed = await openPacked(path);
      await writeHuggingFaceDirectory(packed, `${directory}/f16`);
      using written = await openDirectory(`${directory}/f16`);
      for (const { name, shape } of layerTensors(source.config, 0)) {
        const decoded = await packed.read(name, shape);
        assertEquals(await written.read(name, shape), decoded.map(Math.f16round), name);
        const isPacked = packed.packed.has(name.replace(/\.weight$/, ""));
        if (!isPacked) assertEquals(decoded, await source.read(name, shape), name);
      }
    }));
}

Deno.test("openDirectory: biases and norms are where config.json says", async () => {
  const { layers: [qwen2] } = (await loadFixture("qwen2_tied")).model;
  assertEquals(Object.values(qwen2.linears).map(({ bias }) => bias?.length), [64, 32, 32, ...Array(4).fill(undefined)]);
  assertEquals(qwen2.queryNorm, undefined);
  const { layers: [qwen3] } = (await loadFixture("qwen3_wide_heads")).model;
  assertEquals([qwen3.queryNorm?.length, qwen3.keyNorm?.length, qwen3.linears.q_proj.bias], [32, 32, undefined]);
});

Deno.test("openDirectory: a fused tensor that is missing or has another shape is refused", () =>
  inDirectory(async (directory) => {
    const file = await openSafetensors(`${FIXTURES}phi3_fused/model.safetensors`);
    using _source = file.source;
    await Deno.copyFile(`${FIXTURES}phi3_fused/config.json`, `${directory}/config.json`);
    const tensors = Array.from(file.tensors.values(), (info) => tensorToWrite({ file, info }));
    const qkv = "model.layers.1.self_attn.qkv_proj.weight";
    const write = (tensors: TensorToWrite[]) => writeSafetensors(`${directory}/model.safetensors`, tensors, {});
    const refused = (message: string) => assertRejects(() => openDirectory(directory), SyntaxError, message);
    await write(tensors.filter(({ name }) => name !== qkv));
    await refused(`${directory}: no tensor ${qkv}`);
    const withRows = (rows: number) => ({ name: qkv, dtype: "BF16" as const, shape: [rows, 32] });
    const zeros = { ...withRows(120), bytes: () => new Uint8Array(120 * 64) };
    await write([...tensors.filter(({ name }) => name !== qkv), zeros]);
    await refused(`tensor ${qkv} has shape [120, 32], must be [128, 32]`);
    const glm = JSON.parse(await Deno.readTextFile(`${FIXTURES}glm_partial/config.json`));
    await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(glm));
    await write([
      ...tensors,
      { name: "model.layers.0.self_attn.k_proj.bias", dtype: "BF16", shape: [30], bytes: () => new Uint8Array(60) },
    ]);
    await refused("tensor model.layers.0.self_attn.k_proj.bias has shape [30], must be [32]");
  }));

Deno.test("parseConfig: partial rotation where an architecture has it, and what is refused", async () => {
  const read = async (name: string) => JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}/config.json`));
  const [glm, phi3, llama] = [await read("glm_partial"), await read("phi3_fused"), await read("llama_tied_gqa")];
  const parse = (fields: object, changes: object) =>
    parseConfig("config.json", JSON.stringify({ ...fields, ...changes }));
  assertEquals(parse(glm, {}).rope, { theta: 10000, rotatedSize: 8 });
  // GlmConfig's and Phi3Config's own values, and the older spelling of both.
  assertEquals(parse(glm, { rope_parameters: undefined }).rope, { theta: 10000, rotatedSize: 8 });
  assertEquals(parse(phi3, { rope_parameters: undefined }).rope, { theta: 10000 });
  assertEquals(parse(phi3, { rope_parameters: undefined, partial_rotary_factor: 0.75 }).rope.rotatedSize, 12);
  assertEquals([parse(glm, {}).attentionBias, parse(glm, {}).outputBias], [true, false]);
  assertEquals(parse(glm, { attention_bias: false }).attentionBias, false);
  const refused = (fields: object, changes: object, message: string) =>
    assertThrows(() => parse(fields, { rope_parameters: undefined, ...changes }), SyntaxError, message);
  refused(
    phi3,
    { partial_rotary_factor: 0.7 },
    "partial_rotary_factor is 0.7, which rotates 11 of a head's 16 elements, must rotate an even number",
  );
  refused(glm, { partial_rotary_factor: 0.1 }, "which rotates 1 of a head's 16 elements");
  refused(glm, { partial_rotary_factor: 1.5 }, "partial_rotary_factor is 1.5, must be a number between 0 and 1");
  refused(llama, { partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5, must be 1");
});

Deno.test("parseConfig: contexts that scalings of rotation stretch, and what is refused", async () => {
  const read = async (name: string) => JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}/config.json`));
  const contexts = await Promise.all(SCALED.map(async (name) => {
    return parseConfig("config.json", JSON.stringify(await read(name))).context;
  }));
  assertEquals(contexts, [256, 200, 256, 256]);
  const refused = async (name: string, changes: object, message: string) => {
    const fields = await read(name);
    const rope_parameters = { ...fields.rope_parameters, ...changes };
    const text = JSON.stringify({ ...fields, rope_parameters });
    assertThrows(() => parseConfig("config.json", text), SyntaxError, message);
  };
  await refused("llama_linear", { factor: 0 }, "factor is 0, must be a number between 0.000001");
  await refused("llama_dynamic", { factor: "x" }, 'factor is "x", must be a number');
  await refused("qwen2_yarn", { truncate: 1 }, "truncate is 1, must be true or false");
  await refused("phi3_longrope", { long_factor: null }, "long_factor is null, must be a list");
  await refused("phi3_longrope", { short_factor: [1, 2] }, "short_factor is [1,2], must be 6 positive numbers");
});

Deno.test("parseConfig: older names of longrope, which needs its factors, and YaRN's factors of attention", async () => {
  const parse = (json: object, changes: object) =>
    parseConfig("config.json", JSON.stringify({ ...json, rope_parameters: changes })).rope.scaling;
  const read = async (name: string) => JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}/config.json`));
  const phi3 = await read("phi3_longrope");
  const { rope_type: _, ...factors } = phi3.rope_parameters;
  const wanted = parse(phi3, phi3.rope_parameters);
  for (const type of ["su", "yarn"]) assertEquals(parse(phi3, { type, ...factors }), wanted);
  const yarn = await read("qwen2_yarn");
  const attention = (changes: object) => {
    const scaling = parse(yarn, { ...yarn.rope_parameters, ...changes });
    return scaling?.type === "yarn" && scaling.attentionFactor;
  };
  // 0.1 ln(4) + 1 and, of mscale 1 and mscale_all_dim 0.5, the quotient of 0.1 ln(4) + 1 and 0.05 ln(4) + 1.
  assertAlmostEquals(Number(attention({})), 1.1386294, 1e-6);
  assertAlmostEquals(Number(attention({ mscale: 1, mscale_all_dim: 0.5 })), 1.0648216, 1e-6);
  assertEquals(attention({ attention_factor: 2 }), 2);
});

Deno.test("forward: sequences end where a dynamic rotation would change, and don't go on where longrope does", async () => {
  const run = async (name: string, ...lengths: readonly number[]) => {
    const { model } = await loadFixture(name);
    let prefix: ReturnType<typeof forward>["cache"][number] | undefined;
    for (const length of lengths) {
      const segment = { tokens: new Uint32Array(length), ...(prefix && { prefix }) };
      [prefix] = forward(model, [segment], matmulPlain).cache;
    }
  };
  await assertRejects(() => run("llama_dynamic", 201), RangeError, "sequence has 201 tokens, must have at most 200");
  await run("phi3_longrope", 60, 40);
  await run("phi3_longrope", 101, 2);
  await assertRejects(
    () => run("phi3_longrope", 60, 41),
    RangeError,
    "sequence goes on from 60 to 101 tokens, must stay within its original context of 100 or be taken in at once",
  );
});

Deno.test("openDirectory: a bias that config.json doesn't speak of is refused", () =>
  inDirectory(async (directory) => {
    await Deno.copyFile(`${FIXTURES}qwen2_tied/model.safetensors`, `${directory}/model.safetensors`);
    const config = JSON.parse(await Deno.readTextFile(`${FIXTURES}qwen2_tied/config.json`));
    await Deno.writeTextFile(
      `${directory}/config.json`,
      JSON.stringify({ ...config, architectures: ["MistralForCausalLM"] }),
    );
    await assertRejects(
      () => openDirectory(directory),
      SyntaxError,
      "has model.layers.0.self_attn.k_proj.bias, must not by its config.json (MistralForCausalLM)",
    );
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
