import { judgeCost } from "../../experiments/cost.ts";
import { judgeEndToEnd } from "../../experiments/end_to_end.ts";
import type { Row } from "../../experiments/results/result.ts";
import { DOES_NOT_FIT, unlessOutOfMemory } from "../../experiments/unless_out_of_memory.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";

const speedRow = (format: string, speed: number | null): Row => ({
  model: "llama-2-7b",
  format,
  context: 128,
  decode_tokens_per_s: speed,
});

Deno.test("end_to_end: two speeds give their ratio", () => {
  const { measured, status } = judgeEndToEnd([speedRow("f16", 100), speedRow("twobit", 175)], false);
  assertEquals([measured, status], [1.75, "reproduced"]);
  assertEquals(judgeEndToEnd([speedRow("f16", 100), speedRow("twobit", 150)], false).status, "not reproduced");
});

const MISSING: readonly (readonly [rows: readonly Row[], missing: string])[] = [
  [[], "in f16 and twobit;"],
  [[speedRow("twobit", 175)], "in f16;"],
  [[{ model: "llama-2-7b", format: "f16", context: null, note: DOES_NOT_FIT }, speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", null), speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", 0), speedRow("twobit", 175)], "in f16;"],
  [[speedRow("f16", 100), speedRow("twobit", null)], "in twobit;"],
];

for (const [rows, missing] of MISSING) {
  Deno.test(`end_to_end: no speed ${missing} ${rows.length} rows: nothing is judged`, () => {
    const { measured, status, note } = judgeEndToEnd(rows, false);
    assertEquals([measured, status], [null, "not measured"]);
    assertStringIncludes(note, missing);
  });
}

const costRows = (runtime: number | null, hardware: number | null): Row[] => [
  { format: "f16", cost_ratio: 1, hardware_ratio: 1 },
  { format: "twobit", cost_ratio: runtime, hardware_ratio: hardware },
];

const COSTS: readonly (readonly [Row[], measured: string | null, status: string])[] = [
  [costRows(3, 3), "runtime 3.00, hardware 3.00", "reproduced"],
  [costRows(3, 2), "runtime 3.00, hardware 2.00", "partly"],
  [costRows(2, 2), "runtime 2.00, hardware 2.00", "not reproduced"],
  [costRows(null, 3), "runtime not measured, hardware 3.00", "partly"],
  [costRows(null, 2), "runtime not measured, hardware 2.00", "not measured"],
  [costRows(null, null), null, "not measured"],
  [[], null, "not measured"],
];

for (const [rows, measured, status] of COSTS) {
  Deno.test(`cost: ${measured ?? `${rows.length} rows without ratios`} is ${status}`, () => {
    const verdict = judgeCost(rows);
    assertEquals([verdict.measured, verdict.status], [measured, status]);
  });
}

Deno.test("unlessOutOfMemory: undefined where there is no room, other errors go on", async () => {
  assertEquals(await unlessOutOfMemory(() => Promise.resolve(3)), 3);
  assertEquals(await unlessOutOfMemory(() => Promise.reject(new OutOfMemoryError("full", 8, 4))), undefined);
  await assertRejects(() => unlessOutOfMemory(() => Promise.reject(new RangeError("other"))), RangeError, "other");
});
