import { readLayer } from "../../model/checkpoint.ts";
import { openFileSource } from "../../model/file_source.ts";
import { createLayerReader } from "../../model/layer_reader.ts";
import { linearName } from "../../model/llama.ts";
import { openModel } from "../../model/load.ts";
import { openSafetensors } from "../../model/open_directory.ts";
import { tensorInfo } from "../../model/safetensors.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { inDirectory } from "../temporary.ts";

const fixture = (name: string) => new URL(`../fixtures/${name}`, import.meta.url).pathname;

Deno.test("createLayerReader: the layers that readLayer reads, in any order, with biases and norms", async () => {
  for (const name of ["qwen2_tied", "qwen3_wide_heads", "gguf/qwen2.gguf", "gguf/llama_spm.gguf"]) {
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
    assertEquals(dtype, "F32");
    const bytes = await Deno.readFile(path);
    new DataView(bytes.buffer).setFloat32(offset + 4 * 7, NaN, true);
    await Deno.writeFile(path, bytes);
    using checkpoint = await openModel(directory);
    using reader = await createLayerReader(checkpoint);
    await reader.readLayer(0);
    await assertRejects(() => reader.readLayer(1), SyntaxError, `tensor ${name} holds NaN at element 7`);
    await reader.readLayer(0);
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
