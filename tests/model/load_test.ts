import type { Checkpoint } from "../../model/files/checkpoint.ts";
import { openModel } from "../../model/load.ts";
import { ARCHITECTURE_FIXTURES } from "./engine_helpers.ts";
import { packPlan } from "./pack_plan.ts";
import { cpuDevice } from "../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../model/quantize/packed_writer.ts";
import { createCpuPool } from "../../model/workers/cpu_pool.ts";
import { SETTINGS } from "../../quant/recipe.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../assert.ts";
import { inDirectory } from "../temporary.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;

/** Rows that start and end within and between tiles, heads and shards. */
async function checkRows(model: Checkpoint): Promise<void> {
  assert(model.shapes.size > 10);
  for (const [name, shape] of model.shapes) {
    const whole = await model.read(name, shape);
    const [rows] = shape;
    const width = whole.length / rows;
    for (const [first, count] of [[0, 1], [Math.floor(rows / 3), Math.ceil(rows / 2)], [rows - 1, 1], [rows, 0]]) {
      const found = await model.readRows(name, first, count);
      assertEquals(found, whole.slice(first * width, (first + count) * width), `${name} from ${first}`);
    }
    await assertRejects(() => model.readRows(name, rows - 1, 2), RangeError, `must lie within 0..${rows}`);
  }
  await assertRejects(() => model.readRows("no", 0, 1), SyntaxError, "no tensor no");
}

for (const name of [...ARCHITECTURE_FIXTURES, "gguf/llama_spm.gguf", "gguf/qwen3.gguf"]) {
  Deno.test(`openModel: rows of ${name} are those of its whole tensors`, async () => {
    using model = await openModel(FIXTURES + name);
    await checkRows(model);
  });
}

Deno.test("openModel: rows of a packed file with outliers are those of its whole tensors", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    using source = await openModel(`${FIXTURES}qwen2_tied`);
    using pool = createCpuPool(1);
    const outliers = { ...SETTINGS.outliers, share: 0.002 };
    const quantizer = { kind: "twobit", settings: { ...SETTINGS, outliers } } as const;
    await writePackedFile(cpuDevice(pool), source, packPlan(path, { quantizerOf: () => quantizer }));
    using model = await openModel(path);
    assertEquals([...model.shapes].sort(), [...source.shapes].sort());
    await checkRows(model);
  }));

Deno.test("openModel: a model without a tokenizer opens, and says what is missing when it is asked for", async () => {
  using model = await openModel(`${FIXTURES}qwen2_tied`);
  assertThrows(() => model.tokenizer, SyntaxError, "qwen2_tied has no tokenizer.json");
});
