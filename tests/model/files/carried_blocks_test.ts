import { writeHuggingFaceDirectory } from "../../../model/files/huggingface_writer.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { tensorInfo } from "../../../model/files/safetensors.ts";
import type { LinearKind } from "../../../model/llama/layer.ts";
import { openModel } from "../../../model/load.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { SETTINGS } from "../../../quant/recipe.ts";
import { assertEquals, assertRejects } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";

/** Its matrices are Q8_0, Q4_0 and Q4_1; the decoded values are checked in gguf_test.ts. */
const SOURCE = new URL("../../fixtures/gguf/llama_spm.gguf", import.meta.url).pathname;

/** Where a tensor lies in a packed file. */
async function placeOf(path: string, name: string) {
  using packed = await openPacked(path);
  return tensorInfo(packed.file, name);
}

Deno.test("quantize: tensors of blocks are carried as they are, in the order of heads, and written back in f16", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    using checkpoint = await openModel(SOURCE);
    using pool = createCpuPool(1);
    // Only v_proj is packed; q and k are Q4_0 and Q4_1 and have other orders of rows in the two files.
    const quantizerOf = (_: number, kind: LinearKind) =>
      kind === "v_proj" ? { kind: "twobit", settings: SETTINGS } as const : undefined;
    await writePackedFile(cpuDevice(pool), checkpoint, packPlan(path, { quantizerOf }));
    using packed = await openPacked(path);
    const stated: Record<string, { type: string; shape: number[] }> = JSON.parse(packed.file.metadata.gguf_tensors);
    for (const [name, { shape }] of Object.entries(stated)) assertEquals(shape, checkpoint.shapes.get(name));
    const types = Object.values(stated).map(({ type }) => type);
    assertEquals([types.length, new Set(types)], [14, new Set(["Q8_0", "Q4_0", "Q4_1"])]);
    const { sizeBytes } = tensorInfo(packed.file, "model.embed_tokens.weight");
    assertEquals(sizeBytes, (packed.config.vocabulary * packed.config.hidden * 34) / 32);
    await writeHuggingFaceDirectory(packed, `${directory}/f16`);
    using written = await openModel(`${directory}/f16`);
    for (const [name, shape] of checkpoint.shapes) {
      if (name.endsWith("v_proj.weight")) continue;
      const values = await checkpoint.read(name, shape);
      assertEquals(await packed.read(name, shape), values, name);
      assertEquals(await packed.readRows(name, 1, 3), await checkpoint.readRows(name, 1, 3), name);
      assertEquals(await written.read(name, shape), values.map(Math.f16round), name);
    }
  }));

Deno.test("openPacked: what metadata says of carried blocks must fit the tensor, and its weights be numbers", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    using checkpoint = await openModel(SOURCE);
    using pool = createCpuPool(1);
    await writePackedFile(cpuDevice(pool), checkpoint, packPlan(path));
    const [bytes, { offset }] = [await Deno.readFile(path), await placeOf(path, "model.embed_tokens.weight")];
    const text = new TextDecoder("latin1").decode(bytes);
    const changed = async (from: string, to: string) => {
      const at = text.indexOf(from);
      assertEquals([from.length, at > 0], [to.length, true]);
      const copy = bytes.slice();
      copy.set(new TextEncoder().encode(to), at);
      await Deno.writeFile(path, copy);
      return () => openPacked(path);
    };
    const refused = async (from: string, to: string, message: string) =>
      await assertRejects(await changed(from, to), SyntaxError, `gguf_tensors: model.embed_tokens.weight ${message}`);
    const [type, shape] = ['\\"type\\":\\"Q8_0\\"', '\\"shape\\":[420,32]'];
    await refused(type, type.replace("Q8_0", "Q9_0"), 'has type "Q9_0", must be one of blocks');
    await refused(type, type.replace("Q8_0", "F16 "), 'has type "F16 ", must be one of blocks');
    await refused(type, type.replace("Q8_0", "Q4_0"), "is U8 [420, 34], must be U8 [420, 18]");
    await refused(
      shape,
      shape.replace("32", "33"),
      "has shape [420,33], must be positive lengths, the last a multiple",
    );
    await refused(shape, shape.replace("420", "421"), "is U8 [420, 34], must be U8 [421, 34]");
    bytes.fill(0xff, offset, offset + 2);
    await Deno.writeFile(path, bytes);
    using packed = await openPacked(path);
    const read = () => packed.read("model.embed_tokens.weight", [420, 32]);
    await assertRejects(read, SyntaxError, "tensor model.embed_tokens.weight holds NaN at element 0");
  }));
