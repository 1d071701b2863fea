import { openModel } from "../../../model/load.ts";
import { tuningBytes } from "../../../model/tune/tuning_limits.ts";
import { epochBatches, evenShare, rateOfStep, splitWindows, TUNING } from "../../../model/tune/tuning_plan.ts";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "../../assert.ts";

const numbers = (length: number) => Array.from({ length }, (_, i) => i);

Deno.test("splitWindows: the last of each sixteen is held out, of fewer the last", () => {
  assertEquals(splitWindows(numbers(35)).heldOut, [15, 31]);
  assertEquals(splitWindows(numbers(35)).tuned.length, 33);
  assertEquals(splitWindows(numbers(2)), { tuned: [0], heldOut: [1] });
  assertThrows(() => splitWindows([0]), RangeError, "tuning has 1 windows, must have at least 2");
});

Deno.test("epochBatches: all windows once, in even steps, in an order that follows from the seed", () => {
  const batches = epochBatches(numbers(33), 16, 1);
  assertEquals(batches.map(({ length }) => length), [11, 11, 11]);
  assertEquals(batches.flat().toSorted((a, b) => a - b), numbers(33));
  assertEquals(batches, epochBatches(numbers(33), 16, 1));
  assert(JSON.stringify(batches) !== JSON.stringify(epochBatches(numbers(33), 16, 2)));
  assertEquals([evenShare(7, 16), evenShare(420, 16), evenShare(17, 16)], [7, 16, 9]);
});

Deno.test("rateOfStep: rises over eight steps, then falls along a cosine", () => {
  const rates = numbers(100).map((step) => rateOfStep(TUNING.rate, step, 100));
  assertAlmostEquals(rates[0], TUNING.rate / 8);
  assertAlmostEquals(rates[50], TUNING.rate / 2);
  assertAlmostEquals(rates[75], TUNING.rate * 0.5 * (1 - Math.SQRT1_2));
  assert(rates[99] > 0 && rates[99] < TUNING.rate / 1000);
});

Deno.test("tuningBytes: matrices that stay in 16 bits take 2 bytes a weight, packed ones 5.1 bits at most", async () => {
  using checkpoint = await openModel("tiny");
  const bytes = (isQuantized: (layer: number) => boolean) =>
    tuningBytes(checkpoint.config, { windows: 1, windowTokens: 64, longest: 64 }, isQuantized);
  // q and o 512 x 512, k and v 128 x 512, gate, up and down 1024 x 512, in each of 5 layers.
  const layerWeights = 2 * 512 ** 2 + 2 * 128 * 512 + 3 * 1024 * 512;
  const saved = layerWeights * (2 - 5.1 / 8);
  assert(Math.abs(bytes(() => false) - bytes(() => true) - 5 * saved) <= 1);
  assert(Math.abs(bytes(() => false) - bytes((layer) => layer === 3) - saved) <= 1);
});
