import { clusteredMean, mean, medianEstimate, pairedDifference, ratioOf } from "../../../model/host/statistics.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "../../assert.ts";

Deno.test("mean: by hand", () => {
  assertEquals(mean([1, 2, 6]), 3);
  assertEquals(mean(Uint8Array.of(0, 1, 1, 0)), 0.5);
});

Deno.test("clusteredMean: by hand", () => {
  // Means 1.5, 3.5, 7; deviations -2.5, -0.5, 3; variance 15.5 / 2, of the mean 15.5 / 6.
  const { value, standardError } = clusteredMean([[1, 2], Float32Array.of(3, 4), [5, 9]]);
  assertEquals(value, 4);
  assertAlmostEquals(standardError, Math.sqrt(15.5 / 6), 1e-15);
  assertEquals(clusteredMean([[2, 4], [3, 3]]), { value: 3, standardError: 0 });
});

Deno.test("clusteredMean: values of one element each give the standard error of the mean", () => {
  // numpy 2.4: np.std([0, 1, 1, 0, 1, 1, 1, 0], ddof=1) / np.sqrt(8) = 0.18298126367784995
  const { value, standardError } = clusteredMean([0, 1, 1, 0, 1, 1, 1, 0].map((hit) => [hit]));
  assertEquals(value, 0.625);
  assertAlmostEquals(standardError, 0.18298126367784995, 1e-15);
});

Deno.test("pairedDifference: by hand; what both share cancels", () => {
  // Differences 1, 3, 2: mean 2, variance 1, of the mean 1/3.
  const { value, standardError } = pairedDifference([101, 203, 302], Float64Array.of(100, 200, 300));
  assertEquals(value, 2);
  assertAlmostEquals(standardError, Math.sqrt(1 / 3), 1e-15);
  assertEquals(pairedDifference([5, 1, 3], [4, 0, 2]), { value: 1, standardError: 0 });
});

Deno.test("clusteredMean: refuses fewer than two clusters, which have no standard error", () => {
  assertThrows(() => clusteredMean([[1, 2]]), RangeError, "1 clusters given, must be at least 2");
});

Deno.test("ratioOf: relative errors add up in squares, by hand", () => {
  // 3 % and 4 % make 5 %.
  const { value, standardError } = ratioOf({ value: 200, standardError: 6 }, { value: 100, standardError: 4 });
  assertEquals(value, 2);
  assertAlmostEquals(standardError, 0.1, 1e-12);
});

Deno.test("medianEstimate: by hand; a value far off changes nothing", () => {
  // Of 9 values the root is 3: the middle is place 4, the others places 2 and 6 (from 0), with 3 and 7.
  const values = [5, 1, 9, 3, 2, 8, 4, 7, 6];
  assertEquals(medianEstimate(values), { value: 5, standardError: 2 });
  assertEquals(medianEstimate(values.with(2, 1e6)), { value: 5, standardError: 2 });
  assertEquals(medianEstimate([1, 4]), { value: 1, standardError: 1.5 });
  assertThrows(() => medianEstimate([1]), RangeError, "1 values given, must be at least 2");
});

Deno.test("medianEstimate: its error encloses the true median in about two of three cases or more", () => {
  const random = createRandom(1);
  for (const count of [5, 6, 12, 24, 48]) {
    const trials = 2000;
    let enclosed = 0;
    for (let i = 0; i < trials; i++) {
      const { value, standardError } = medianEstimate(Array.from({ length: count }, () => random.normal()));
      if (Math.abs(value) <= standardError) enclosed++;
    }
    assert(enclosed > 0.6 * trials, `${enclosed} of ${trials} with ${count} values`);
  }
});
