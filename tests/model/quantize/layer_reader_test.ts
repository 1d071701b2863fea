import { readLayer, readWeights } from "../../../model/files/checkpoint.ts";
import { openFileSource } from "../../../model/files/file_source.ts";
import { createLayerReader } from "../../../model/quantize/layer_reader.ts";
import { LINEAR_KINDS, linearName, linearShape, STAGES } from "../../../model/llama/layer.ts";
import type { Layer } from "../../../model/llama/llama.ts";
import { openModel } from "../../../model/load.ts";
import { bytesOf } from "../../../model/files/numbers.ts";
import { openSafetensors } from "../../../model/files/open_directory.ts";
import { tensorInfo } from "../../../model/files/safetensors.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

const fixture = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

Deno.test("createLayerReader: the layers that readLayer reads, in any order, with biases and norms", async () => {
  for (
    const name of [
      "qwen2_tied",
      "qwen3_wide_heads",
      "glm_partial",
      "phi3_fused",
      "gguf/qwen2.gguf",
      "gguf/llama_spm.gguf",
    ]
  ) {
    using checkpoint = await openModel(fixture(name));
    using reader = await createLayerReader(checkpoint);
    for (const index of [0, 1, 1, 0].filter((index) => index < checkpoint.config.layers)) {
      assertEquals(await reader.readLayer(index), await readLayer(checkpoint, index));
    }
  }
});

Deno.test("createLayerReader: a weight that is not a number fails its layer, by name, and no other one", () =>
  inDirectory(async (directory) => {
    const source = fixture("llama_tied_gqa");
    for await (const { name } of Deno.readDir(source)) await Deno.copyFile(`${source}/${name}`, `${directory}/${name}`);
    const path = `${directory}/model.safetensors`;
    const file = await openSafetensors(path);
    const name = `${linearName(1, "up_proj")}.weight`;
    const { offset, dtype } = tensorInfo(file, name);
    file.source[Symbol.dispose]();
    assertEquals(dtype, "BF16");
    const bytes = await Deno.readFile(path);
    new DataView(bytes.buffer).setUint16(offset + 2 * 7, 0x7fc0, true);
    await Deno.writeFile(path, bytes);
    using checkpoint = await openModel(directory);
    using reader = await createLayerReader(checkpoint);
    await reader.readLayer(0);
    await assertRejects(() => reader.readLayer(1), SyntaxError, `tensor ${name} holds NaN at element 7`);
    await reader.readLayer(0);
  }));

Deno.test("createLayerReader: two layers at most are in memory", async () => {
  using checkpoint = await openModel(fixture("llama_tied_gqa"));
  const { config } = checkpoint;
  const given: Layer[] = [];
  const heldBytes = () =>
    given.flatMap(({ linears }) => LINEAR_KINDS.map((kind) => linears[kind].weights.byteLength))
      .reduce((sum, bytes) => sum + bytes, 0);
  const layerBytes = LINEAR_KINDS.map((kind) => linearShape(config, kind))
    .reduce((sum, [rows, channels]) => sum + 4 * rows * channels, 0);
  {
    using reader = await createLayerReader(checkpoint);
    for (let i = 0; i < 10; i++) {
      given.push(await reader.readLayer(i % config.layers));
      assertEquals(heldBytes(), layerBytes);
    }
  }
  assertEquals(heldBytes(), 0);
});

Deno.test("createLayerReader: stages are freed one by one, and the layers that are read in their place are whole", async () => {
  using checkpoint = await openModel(fixture("llama_tied_gqa"));
  using reader = await createLayerReader(checkpoint);
  const first = await reader.readLayer(0);
  for (const [stage, { linears }] of STAGES.entries()) {
    assert(linears.every((kind) => first.linears[kind].weights.length > 0));
    reader.freeStage(stage);
    assert(linears.every((kind) => first.linears[kind].weights.length === 0));
  }
  assertEquals(await reader.readLayer(1), await readLayer(checkpoint, 1));
  // Freed in part, and another one than the next.
  reader.freeStage(0);
  assertEquals(await reader.readLayer(0), await readLayer(checkpoint, 0));
});

Deno.test("readWeights: tensors that are read in several parts, the last one not whole", () =>
  inDirectory(async (directory) => {
    const elements = 2 ** 22 + 2 ** 20 + 3;
    // Whole and below 2^8, so exact in any of the types.
    const value = (i: number) => (i * 37) & 255;
    const floats = Float32Array.from({ length: elements }, (_, i) => value(i));
    const words = new Uint32Array(floats.buffer);
    const stored = {
      F32: floats,
      F16: Float16Array.from(floats),
      BF16: Uint16Array.from(words, (word) => word >> 16),
    };
    for (const [dtype, values] of Object.entries(stored)) {
      const path = `${directory}/${dtype}.safetensors`;
      const tensor = { name: "w", dtype: dtype as keyof typeof stored, shape: [elements] };
      await writeSafetensors(path, [{ ...tensor, bytes: () => bytesOf(values) }], {});
      const file = await openSafetensors(path);
      using _source = file.source;
      const read = await readWeights({ file, info: tensorInfo(file, "w") }, [elements]);
      assertEquals(read.length, elements);
      assertEquals(read.findIndex((found, i) => found !== value(i)), -1);
    }
  }));

Deno.test("openFileSource: reads that are asked for at once don't disturb each other", () =>
  inDirectory(async (directory) => {
    const bytes = Uint8Array.from({ length: 2 ** 20 }, (_, i) => (i * 31) >> 3);
    await Deno.writeFile(`${directory}/bytes`, bytes);
    using source = await openFileSource(`${directory}/bytes`);
    const ranges = Array.from({ length: 20 }, (_, i) => [(i * 7919 * 13) % 2 ** 19, 2 ** 19 - i] as const);
    const parts = await Promise.all(ranges.map(([offset, length]) => source.read(offset, length)));
    for (const [i, [offset, length]] of ranges.entries()) {
      assertEquals(parts[i].length, length);
      assertEquals(parts[i], bytes.slice(offset, offset + length));
    }
    await assertRejects(() => source.read(2 ** 20 - 1, 2), RangeError);
    assertEquals(await source.read(3, 1), bytes.slice(3, 4));
  }));
