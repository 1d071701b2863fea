import { async } from "../../experiments/async.ts";
import { compareResults, counts, incomparable } from "../../experiments/results/compare_results.ts";
import { createContext } from "../../experiments/context.ts";
import { assert, assertEquals } from "../assert.ts";
import { makeResult } from "./make_result.ts";

Deno.test("async: two runs are comparable and differ in clock readings alone; bandwidth is a row", async () => {
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
  for (const { bytes, time_us: timeUs, bandwidth_fraction: fraction } of others) {
    const expected = (Number(bytes) / Number(timeUs)) / (Number(read.bytes) / Number(read.time_us));
    assert(Math.abs(Number(fraction) / expected - 1) < 1e-12);
  }
});
