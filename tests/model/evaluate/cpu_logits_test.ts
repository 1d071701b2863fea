import { cpuLogits } from "../../../model/evaluate/cpu_logits.ts";
import { openModel } from "../../../model/load.ts";
import { assertClose, assertEquals, assertRejects } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { ARCHITECTURE_FIXTURES } from "../engine_helpers.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

/** Tokens and logits computed by Hugging Face transformers in f32 (tests/fixtures/make_architectures.py). */
interface Expected {
  readonly tokens: number[];
  readonly positions: number[];
  readonly logits: number[][];
}

for (const name of ARCHITECTURE_FIXTURES) {
  Deno.test(`cpuLogits: ${name} agrees with Hugging Face transformers`, async () => {
    using model = await openModel(FIXTURES + name);
    const { tokens, positions, logits } = await readJson<Expected>(`${name}/expected.json`);
    const found = await cpuLogits(model, tokens, positions);
    assertEquals(found.length, logits.length);
    for (const [i, row] of found.entries()) assertClose(row, logits[i], 2e-4);
    assertEquals((await cpuLogits(model, tokens.slice(0, 3))).length, 3);
  });
}

Deno.test("cpuLogits: a position that is none of the tokens' is refused", async () => {
  using model = await openModel(`${FIXTURES}qwen2_tied`);
  for (const position of [-1, 2, 0.5]) {
    await assertRejects(() => cpuLogits(model, [1, 2], [position]), RangeError, `position is ${position}, must be`);
  }
});
