import { async } from "../../experiments/async.ts";
import { describe, type Measured } from "../../experiments/async_table.ts";
import { fractionOfRead } from "../../experiments/kernel_bench.ts";
import { compareResults, counts, incomparable } from "../../experiments/results/compare_results.ts";
import { createContext } from "../../experiments/context.ts";
import { assert, assertAlmostEquals, assertEquals } from "../assert.ts";
import { makeResult } from "./make_result.ts";

Deno.test("async: two runs are comparable and differ in clock readings alone; bandwidth is a row, without fractions", async () => {
  const run = async () => {
    const settings = { quick: true, seed: 1, modelName: "tiny", textName: "sotu", taskFiles: [] };
    using context = createContext(settings, () => {});
    return makeResult({ id: "async", ...await async.run(context) });
  };
  const [first, second] = [await run(), await run()];
  assertEquals(incomparable(first, second), undefined);
  assertEquals(compareResults(new Map([["async", first]]), new Map([["async", second]]), 0).filter(counts), []);
  const [read, ...others] = first.rows;
  assertEquals(read.variant, "read_memory");
  assert(others.length > 0 && others.every(({ bandwidth_fraction: fraction }) => fraction === null));
});

Deno.test("async: fractions of a read and what outliers cost, with errors; what isn't above its error says so; by hand", () => {
  const rounds = (timeUs: number) => [timeUs - 1, timeUs, timeUs, timeUs + 1];
  const samples = {
    ...{ two_pass: rounds(80), three_kernels: rounds(90), f16: rounds(30), fused_sync: rounds(12) },
    ...{ fused_async: rounds(10), fused_async_norm: rounds(11), fused_async_outliers: [9.5, 10.5, 9, 11.5] },
  };
  const bytes = Object.fromEntries(Object.keys(samples).map((name) => [name, 400])) as Measured["bytes"];
  const readUs = [10, 10, 10, 10];
  const timing = { samplesUs: readUs, medianUs: 10, minUs: 10, maxUs: 10, invalid: 0 };
  const ceiling = { sizeBytes: 1000, timing, bytesPerUs: 100, tickNs: 1 };
  const rows = describe({ model: "m", layer: "o", rows: 8, channels: 8 }, { samples, bytes }, ceiling);
  const [fused] = rows.filter(({ variant }) => variant === "fused_async");
  // 400 bytes in 10 us, of 100 bytes a us; an error of 1 in 10 us.
  assertAlmostEquals(Number(fused.bandwidth_fraction), 0.4);
  assertAlmostEquals(Number(fused.bandwidth_fraction_error), 0.04);
  assertEquals([fused.speedup_vs_two_pass, fused.note], [8, null]);
  // A read that a kernel outruns is no ceiling, and no share is above 1.
  assertEquals(fractionOfRead(1000, [9, 9, 9], ceiling).value, 1);
  const [sparse] = rows.filter(({ variant }) => variant === "fused_async_outliers");
  // Rounds 9.5 / 9, 10.5 / 10, 9 / 10, 11.5 / 11: the lower middle is 5 / 110, the ends -0.1 and 1 / 18.
  assertAlmostEquals(Number(sparse.outlier_cost), 50 / 11);
  assertEquals(sparse.note, "4.55 ± 7.78 % of the time: within noise");
});
