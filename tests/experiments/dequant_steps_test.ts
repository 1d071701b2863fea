import { ablationRows, pipelineRows } from "../../experiments/dequant_steps.ts";
import { judgeShares } from "../../experiments/dequant_share.ts";
import type { Row } from "../../experiments/results/result.ts";
import { createRandom } from "../../quant/random.ts";
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "../assert.ts";

/** Rounds that all took as long. */
function rounds<Part extends string>(timesUs: Readonly<Record<Part, number>>): Record<Part, number[]> {
  const parts = Object.entries<number>(timesUs).map(([part, timeUs]) => [part, Array(4).fill(timeUs)]);
  return Object.fromEntries(parts);
}

function cellsOf(rows: readonly Row[], key: string): Record<string, unknown> {
  return Object.fromEntries(rows.map((row) => [row.step, row[key]]));
}

Deno.test("pipelineRows: shares of the sequence, by hand", () => {
  const samples = rounds({ secondOrder: 20, firstOrder: 30, multiply: 40, sequence: 100 });
  const { rows, dequantization, secondOrder } = pipelineRows("8x8", samples);
  assertEquals(cellsOf(rows, "share"), {
    second_order: 0.2,
    first_order: 0.3,
    multiply: 0.4,
    other: 0.1,
    sequence: null,
  });
  assertEquals(cellsOf(rows, "time_us"), { second_order: 20, first_order: 30, multiply: 40, other: 10, sequence: 100 });
  assertEquals(dequantization, { value: 0.5, standardError: 0 });
  assertEquals(secondOrder, { value: 0.2, standardError: 0 });
});

Deno.test("pipelineRows: parts that take longer by themselves share out their sum, and other is nothing", () => {
  const samples = rounds({ secondOrder: 20, firstOrder: 30, multiply: 50, sequence: 80 });
  const { rows } = pipelineRows("8x8", samples);
  assertEquals(cellsOf(rows, "share"), {
    second_order: 0.2,
    first_order: 0.3,
    multiply: 0.5,
    other: 0,
    sequence: null,
  });
  assertEquals(rows[3].time_us, -20);
  assertEquals(rows[3].note, "in sequence a kernel finds in the cache what the one before wrote");
});

Deno.test("ablationRows: differences, what is within its error and what is below nothing, by hand", () => {
  const full = [100, 102, 98, 100];
  const samples = {
    full,
    noSecond: full.map((t, i) => t + [1, -1, 1, -1][i]),
    noOrders: Array(4).fill(110),
    bare: Array(4).fill(50),
  };
  const rows = ablationRows("8x8", "fused", samples);
  assertEquals(cellsOf(rows, "note"), {
    load: null,
    first_order: "without it the rest takes longer: counted as nothing",
    second_order: "-1.00 ± 1.00 us: within noise",
    multiply: null,
  });
  // Of 50 us of load and 60 of multiplication, since what is below nothing is left out, and in half of the rounds 1 more.
  assertAlmostEquals(Number(rows[0].share), 50 / 110, 0.005);
  assertAlmostEquals(Number(rows[3].share), 60 / 110, 0.005);
  assertEquals(rows[1].share, 0);
});

Deno.test("no share is below 0 or above 1, whatever was measured", () => {
  const random = createRandom(1);
  const draw = () => Array.from({ length: 6 }, () => 100 * random.uniform() ** 4 + 1e-3);
  for (let i = 0; i < 200; i++) {
    const pipeline = { secondOrder: draw(), firstOrder: draw(), multiply: draw(), sequence: draw() };
    const ablation = { full: draw(), noSecond: draw(), noOrders: draw(), bare: draw() };
    for (const { share } of [...pipelineRows("8x8", pipeline).rows, ...ablationRows("8x8", "fused", ablation)]) {
      assert(share === null || Number(share) >= 0 && Number(share) <= 1, `${share}`);
    }
  }
});

Deno.test("dequant_share: above 0.5 by its error on all shapes, on one, on none", () => {
  const sharesOf = (values: readonly number[]) =>
    values.map((value) => ({
      dequantization: { value, standardError: 0.01 },
      secondOrder: { value: value / 10, standardError: 0.01 },
    }));
  const judge = (...values: number[]) => judgeShares(sharesOf(values)).status;
  assertEquals(judge(0.6, 0.52), "reproduced");
  assertEquals(judge(0.6, 0.505), "partly");
  assertEquals(judge(0.4, 0.505), "partly"); // 0.505 is within its error of 0.5
  assertEquals(judge(0.6, 0.495), "partly");
  assertEquals(judge(0.4, 0.48), "not reproduced");
  const { measured, note } = judgeShares(sharesOf([0.6, 0.7]));
  assertEquals(measured, "0.600 ± 0.010 to 0.700 ± 0.010");
  assertStringIncludes(note, "Second order alone is 0.060 ± 0.010 to 0.070 ± 0.010 (paper 0.191)");
});
