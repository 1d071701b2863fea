import { readModel } from "../../../model/files/checkpoint.ts";
import { bytesOf, decodeHalves } from "../../../model/files/numbers.ts";
import { openModel } from "../../../model/load.ts";
import { quantizeModel } from "../../../model/quantize_file.ts";
import { checkpointSource, modelSource, weightBytes } from "../../../model/engine/weight_source.ts";
import { assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

const DIRECTORY = new URL("../../fixtures/llama_tied_gqa", import.meta.url).pathname;
const HEAD = "model.embed_tokens.weight";

Deno.test("weight sources: a weight that is NaN or beyond f16 is refused by its name", async () => {
  using checkpoint = await openModel(DIRECTORY);
  const model = await readModel(checkpoint);
  const { config, has } = checkpoint;
  const { vocabulary: rows, hidden } = config;
  const name = "model.layers.1.mlp.down_proj";
  const { weights, rows: outputs, channels } = model.layers[1].linears["down_proj"];
  for (
    const [value, what] of [[NaN, "NaN"], [70000, "beyond f16"], [-70000, "beyond f16"], [
      Infinity,
      "beyond f16",
    ]] as const
  ) {
    const changed = Float32Array.from(model.embedding);
    changed[7] = value;
    const read = () => Promise.resolve(changed);
    const message = `${HEAD}[7] is ${what}, must be within 65504`;
    const fromFile = checkpointSource({ name: checkpoint.name, config, has, read });
    await assertRejects(() => fromFile.half(HEAD, rows, hidden), RangeError, message);
    const fromMemory = modelSource({ ...model, embedding: changed });
    await assertRejects(() => fromMemory.half(HEAD, rows, hidden), RangeError, message);
  }
  const first = weights[0];
  weights[0] = 65520; // the least that rounds to infinity
  const linear = () => modelSource(model).linear(1, "down_proj");
  await assertRejects(linear, RangeError, `${name}.weight[0] is beyond f16, must be within 65504`);
  weights[0] = first;
  const matrix = await linear();
  assertEquals(matrix.kind === "f16" && [matrix.rows, matrix.channels], [outputs, channels]);
});

Deno.test("weights of a file as f16: bits worked by hand; what is beyond f16 is refused", () => {
  const ofWords = (dtype: "F16" | "BF16", words: readonly number[]) => {
    const halves = decodeHalves("w", bytesOf(Uint16Array.from(words)), dtype);
    return Array.from(new Uint16Array(halves.buffer, halves.byteOffset, halves.length));
  };
  // 1, -3, the least subnormal, -0.
  assertEquals(ofWords("F16", [0x3c00, 0xc200, 0x0001, 0x8000]), [0x3c00, 0xc200, 0x0001, 0x8000]);
  // 1, -3, 2^-24, 2^-26 (less than half of the least subnormal), 1 + 2^-7.
  assertEquals(ofWords("BF16", [0x3f80, 0xc040, 0x3380, 0x3280, 0x3f81]), [0x3c00, 0xc200, 0x0001, 0, 0x3c08]);
  assertEquals([...decodeHalves("w", bytesOf(Float32Array.of(1, 2049, -0.1)), "F32")], [1, 2048, -0.0999755859375]);
  const message = "w[1] is beyond f16, must be within 65504";
  assertThrows(() => ofWords("BF16", [0, 0x4780]), RangeError, message); // 65536
  assertThrows(() => decodeHalves("w", bytesOf(Float32Array.of(0, -65520)), "F32"), RangeError, message);
});

Deno.test("weight sources: a tensor of numbers is taken from its file as it would be by way of f32", async () => {
  for (const name of ["llama_tied_gqa", "phi3_fused", "glm_partial", "gguf/llama_bpe.gguf"]) {
    using checkpoint = await openModel(new URL(`../../fixtures/${name}`, import.meta.url).pathname);
    const { config, has, read } = checkpoint;
    const [direct, detour] = [checkpointSource(checkpoint), checkpointSource({ name, config, has, read })];
    for (const kind of ["q_proj", "down_proj"] as const) {
      assertEquals(await direct.linear(1, kind), await detour.linear(1, kind));
    }
  }
});

Deno.test("weightBytes: matrices in f16, vectors in f32, packed matrices by the bits that quantizing counts", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel(DIRECTORY);
    const elements = (isLinear: boolean, dimensions: number) =>
      Array.from(checkpoint.shapes)
        .filter(([name, shape]) => name.endsWith("_proj.weight") === isLinear && shape.length === dimensions)
        .reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b), 0);
    const linear = elements(true, 2);
    const others = 2 * elements(false, 2) + 4 * elements(false, 1); // the head is the embedding
    assertEquals(weightBytes(checkpoint), 2 * linear + others);
    const path = `${directory}/q.safetensors`;
    const { bitsPerWeight } = await quantizeModel(DIRECTORY, path, {
      ...{ method: "search", device: "cpu", exclude: /down_proj/, calibration: { windows: 1, windowTokens: 16 } },
    });
    using packed = await openModel(path);
    assertEquals(weightBytes(packed), bitsPerWeight * linear / 8 + others);
  }));
