import { readModel } from "../../../model/files/checkpoint.ts";
import { openModel } from "../../../model/load.ts";
import { checkpointSource, modelSource } from "../../../model/engine/weight_source.ts";
import { assertEquals, assertRejects } from "../../assert.ts";

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
