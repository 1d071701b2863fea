import { type Measured, openFinishedRows, rowsPath } from "../../experiments/finished_rows.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { inDirectory } from "../temporary.ts";

const MEASURED: Measured = {
  bitsPerWeight: 2.8125,
  evaluation: {
    windowLoss: Float64Array.of(0.1 + 0.2, Infinity, 5e-324),
    windowTop1: Float64Array.of(1 / 3, 0, -0.25),
    perplexity: { value: Infinity, standardError: NaN },
    top1: { value: 0.1, standardError: 0.01 },
    choiceHits: Uint8Array.of(1, 0, 1),
    tasks: [{ name: "piqa", questions: 2, accuracy: { value: 1, standardError: 0 }, hits: [1, 1], scores: [[-1, -2]] }],
  },
};

Deno.test("finished rows: come back as they were, by name and quantizers, when a run is resumed", () =>
  inDirectory(async (directory) => {
    const path = rowsPath(directory, "accuracy");
    const state = { seed: 1, quick: false, text: "sotu" };
    const rows = await openFinishedRows(path, state, true);
    assertEquals(rows.find("a", "{}"), undefined);
    await rows.add("a", "{}", MEASURED);
    assertEquals(rows.find("a", "{}"), MEASURED);
    const resumed = await openFinishedRows(path, state, true);
    assertEquals(resumed.find("a", "{}"), MEASURED);
    assertEquals(resumed.find("a", "other"), undefined);
    assertEquals(resumed.find("b", "{}"), undefined);
    const anew = await openFinishedRows(path, state, false);
    assertEquals(anew.find("a", "{}"), undefined);
  }));

Deno.test("finished rows: other settings and what is no such file are refused", () =>
  inDirectory(async (directory) => {
    const path = rowsPath(directory, "accuracy");
    await (await openFinishedRows(path, { seed: 1 }, false)).add("a", "{}", MEASURED);
    await assertRejects(() => openFinishedRows(path, { seed: 2 }, true), RangeError, "seed was 1, is 2");
    await assertRejects(() => openFinishedRows(path, { seed: 1, text: "x" }, true), RangeError, "text was missing");
    await Deno.writeTextFile(path, "{");
    await assertRejects(() => openFinishedRows(path, { seed: 1 }, true), SyntaxError, "is not valid JSON");
    await Deno.writeTextFile(path, "[]");
    await assertRejects(() => openFinishedRows(path, { seed: 1 }, true), SyntaxError, "must be removed");
  }));
