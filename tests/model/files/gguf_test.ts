import { readModel } from "../../../model/files/checkpoint.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { openGgufFile } from "../../../model/files/gguf_file.ts";
import { readGgufTensor } from "../../../model/files/gguf_tensor.ts";
import { loadModel, openModel } from "../../../model/load.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { assertClose, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";
import { readF32, readJson } from "../../fixture.ts";
import { inDirectory } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";

const FOLDER = new URL("../../fixtures/gguf/", import.meta.url).pathname;

/** Made by gguf, transformers, sentencepiece and tokenizers (tests/fixtures/make_gguf.py). */
interface Expected {
  readonly tokens: number[];
  readonly positions: number[];
  readonly logits: number[][];
  /** Lines with their tokens; null where sentencepiece takes no special token from a text. */
  readonly lines: (readonly [line: string, ids: number[] | null])[];
  /** The last row of each matrix. */
  readonly last_rows?: Record<string, number[]>;
}

const EXPECTED = await readJson<Record<string, Expected>>("gguf/expected.json");

Deno.test("readGgufTensor: every type decodes as the gguf package decodes it", async () => {
  const expected = await readF32("gguf/types.f32");
  using file = await openGgufFile(`${FOLDER}types.gguf`);
  const names = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q4_K Q6_K Q2_K Q5_0 Q5_1 Q5_K Q3_K Q8_K IQ4_NL IQ4_XS".split(" ");
  assertEquals([...file.tensors.keys()], names);
  for (const [i, name] of names.entries()) {
    const tensor = file.tensors.get(name)!;
    assertEquals([tensor.type.name, tensor.shape], [name, [2, 256]]);
    const wanted = expected.subarray(512 * i, 512 * (i + 1));
    const largest = wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    // Both compute in few f32 operations, in another order.
    assertClose(await readGgufTensor(tensor), wanted, 4 * 2 ** -24 * largest);
  }
});

Deno.test("readGgufTensor: the first weight that is no number is named", () =>
  inDirectory(async (directory) => {
    const bytes = await Deno.readFile(`${FOLDER}types.gguf`);
    const plain = await openGgufFile(`${FOLDER}types.gguf`);
    const { offset } = plain.tensors.get("F32")!;
    plain[Symbol.dispose]();
    const view = new DataView(bytes.buffer);
    for (const [first, value, last] of [[0, NaN, 1], [300, Infinity, NaN], [511, -Infinity, -Infinity]] as const) {
      view.setFloat32(offset + 4 * 511, last, true);
      view.setFloat32(offset + 4 * first, value, true);
      const path = `${directory}/${first}.gguf`;
      await Deno.writeFile(path, bytes);
      view.setFloat32(offset + 4 * first, 1, true);
      using file = await openGgufFile(path);
      const message = `tensor F32 holds ${value} at element ${first}`;
      await assertRejects(() => readGgufTensor(file.tensors.get("F32")!), SyntaxError, message);
    }
  }));

Deno.test("openGgufFile: any part of a split file opens all of them", async () => {
  const expected = await readF32("gguf/types.f32");
  for (const part of [1, 3]) {
    using file = await openGgufFile(`${FOLDER}split-0000${part}-of-00003.gguf`);
    assertEquals(file.paths.map((path) => path.slice(FOLDER.length)), [
      "split-00001-of-00003.gguf",
      "split-00002-of-00003.gguf",
      "split-00003-of-00003.gguf",
    ]);
    assertEquals(file.metadata["general.architecture"], "llama");
    const names = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"];
    assertEquals([...file.tensors.keys()], names);
    for (const [i, name] of names.entries()) {
      assertEquals(await readGgufTensor(file.tensors.get(name)!), expected.slice(512 * i, 512 * (i + 1)), name);
    }
  }
});

Deno.test("openGgufFile: parts that are missing, called otherwise or mixed up are refused", () =>
  inDirectory(async (directory) => {
    const name = (part: number) => `split-0000${part}-of-00003.gguf`;
    const copy = (part: number, as: string) => Deno.copyFile(`${FOLDER}${name(part)}`, `${directory}/${as}`);
    const opened = (file: string) => () => openGgufFile(`${directory}/${file}`);
    await copy(1, "renamed.gguf");
    await assertRejects(
      opened("renamed.gguf"),
      SyntaxError,
      "renamed.gguf is one of 3 parts, must be called as they are",
    );
    await copy(1, name(1));
    await copy(2, name(3));
    await assertRejects(opened(name(1)), SyntaxError, `${name(2)} is missing, must lie beside ${directory}/${name(1)}`);
    await copy(2, name(2));
    await assertRejects(opened(name(1)), SyntaxError, `${name(3)} says that it is part 2 of 3, must be 3 of 3`);
  }));

Deno.test("openGgufFile: a file that ends early says so, wherever it ends", () =>
  inDirectory(async (directory) => {
    const [whole, path] = [await Deno.readFile(`${FOLDER}llama_bpe.gguf`), `${directory}/cut.gguf`];
    for (
      const [bytes, message] of [[300, "before its tensors begin"], [8000, "before its tensors begin"], [
        36984,
        "ends at byte",
      ]] as const
    ) {
      await Deno.writeFile(path, whole.subarray(0, bytes));
      const error = await assertRejects(() => openGgufFile(path), SyntaxError, message);
      assertStringIncludes(error.message, ` ${bytes}`);
    }
  }));

for (const [name, { tokens, positions, logits, lines }] of Object.entries(EXPECTED)) {
  Deno.test(`loadModel: ${name}.gguf has the logits of Hugging Face transformers`, async () => {
    const { model } = await loadModel(`${FOLDER}${name}.gguf`);
    const width = model.config.hidden;
    const { hidden } = forward(model, [{ tokens: Uint32Array.from(tokens) }], matmulPlain);
    for (const [i, position] of positions.entries()) {
      const row = hidden.subarray(position * width, (position + 1) * width);
      assertClose(logitsOf(model, row, matmulPlain), logits[i], 2e-4);
    }
  });

  Deno.test(`readTokenizer: ${name}.gguf has the tokens of the tokenizer that it was made from`, async () => {
    using checkpoint = await openModel(`${FOLDER}${name}.gguf`);
    const tokenizer = await readTokenizer(checkpoint);
    const isSpm = ["llama_spm", "phi3_long"].includes(name);
    for (const [line, ids] of lines) {
      if (ids) assertEquals(Array.from(tokenizer.encode(line)), ids, JSON.stringify(line));
      const decoded = tokenizer.decode(tokenizer.encode(line));
      const expected = /^q/.test(name) ? line.normalize("NFC") : line;
      if (!line.includes("<")) {
        assertEquals(decoded, expected.replaceAll("\u2581", isSpm ? " " : "\u2581"));
      }
    }
    const startsWithBos = isSpm || name === "llama_bpe";
    assertEquals(Array.from(tokenizer.prefix), startsWithBos ? Array.from(tokenizer.encode("<s>")) : []);
    assertEquals(JSON.parse((await checkpoint.readText("tokenizer_config.json"))!), {
      bos_token: "<s>",
      eos_token: isSpm ? "</s>" : "<|im_end|>",
      add_bos_token: startsWithBos,
    });
  });
}

Deno.test("openModel: a mix of Q5_0, Q4_K, Q6_K and Q8_0 decodes as the gguf package decodes it", async () => {
  using checkpoint = await openModel(`${FOLDER}q4_k_m.gguf`);
  const lastRows = Object.entries(EXPECTED.q4_k_m.last_rows!);
  assertEquals(lastRows.length, 15);
  for (const [name, row] of lastRows) {
    const [rows] = checkpoint.shapes.get(name)!;
    const largest = row.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    assertClose(await checkpoint.readRows(name, rows - 1, 1), row, 4 * 2 ** -24 * largest);
  }
});

Deno.test("openModel: GGUF's Llama 3 scaling, ties and biases are found", async () => {
  using bpe = await openModel(`${FOLDER}llama_bpe.gguf`);
  assertEquals(bpe.config.rope.scaling, {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContext: 8192,
  });
  assertEquals(bpe.config.tiedHead, true);
  using spm = await openModel(`${FOLDER}llama_spm.gguf`);
  assertEquals([spm.config.tiedHead, spm.config.attentionBias, spm.config.rope.scaling], [false, false, undefined]);
  using qwen = await openModel(`${FOLDER}qwen3.gguf`);
  assertEquals([qwen.config.queryKeyNorm, qwen.config.headSize], [true, 8]);
});

Deno.test("quantize: a GGUF file becomes a packed file with its tokenizer and the rest in the types that it has", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(`${FOLDER}llama_spm.gguf`);
    using pool = createCpuPool(1);
    const path = `${directory}/q.safetensors`;
    await writePackedFile(cpuDevice(pool), checkpoint, packPlan(path));
    using packed = await openPacked(path);
    assertEquals([packed.packed.size, packed.config], [14, checkpoint.config]);
    const [before, after] = [await readModel(checkpoint), await readModel(packed)];
    assertEquals(after.finalNorm, before.finalNorm);
    assertEquals([after.embedding, after.head], [before.embedding, before.head]);
    const [own, carried] = [await readTokenizer(checkpoint), await readTokenizer(packed)];
    assertEquals(carried.encode("Call me Ishmael."), own.encode("Call me Ishmael."));
  }));
