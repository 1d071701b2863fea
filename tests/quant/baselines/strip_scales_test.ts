import { quantizeStrips } from "../../../quant/baselines/strips.ts";
import { prepareFeedback } from "../../../quant/error_feedback.ts";
import { greenbitLayout, PAPER_LAYOUT, plainLayout } from "../../../quant/baselines/strip_layout.ts";
import { fitStripScales } from "../../../quant/baselines/strip_scales.ts";
import { dequantizeStrips } from "../../../quant/baselines/strip_tensor.ts";
import { assert, assertClose, assertEquals } from "../../assert.ts";
import { correlatedHessian, normals } from "../helpers.ts";

const ones = (channels: number) => new Float64Array(channels).fill(1);

Deno.test("fitStripScales: minmax by hand, one group of 16 in 2 bits", () => {
  // From -0.5 to 1: scale 1.5 / 3, the code 1 means 0. All above 0: the range begins at 0.
  const weights = Float32Array.from({ length: 32 }, (_, i) => i < 16 ? -0.5 + i / 10 : 3 + (i % 2) * 3);
  const { scales } = fitStripScales(plainLayout(2, 16), weights, 2, ones(16), "minmax");
  assertEquals([...scales.scales], [0.5, 2]);
  assertEquals([...scales.zeros], [1, 0]);
});

Deno.test("fitStripScales: takes the strips with the largest sum of range² x importance into 4 bits", () => {
  // 8 strips, two of them in 4 bits. Ranges of two rows: strip 2 once 4 (16), strip 5 twice 3 (18), strip 6 twice 2 (8).
  const weights = new Float32Array(2 * 128);
  const range = (row: number, strip: number, value: number) => weights[row * 128 + strip * 16 + 7] = value;
  for (const [row, strip, value] of [[0, 2, 4], [0, 5, 3], [1, 5, -3], [0, 6, 2], [1, 6, 2]]) range(row, strip, value);
  const taken = (
    importance: Float64Array,
  ) => [...fitStripScales(PAPER_LAYOUT, weights, 2, importance, "minmax").scales.fourBit];
  assertEquals(taken(ones(128)), [0, 0, 1, 0, 0, 1, 0, 0]);
  const importance = ones(128);
  importance.fill(3, 6 * 16, 7 * 16); // 24
  assertEquals(taken(importance), [0, 0, 0, 0, 0, 1, 1, 0]);
});

Deno.test("fitStripScales: sums of ranges and of importance have nothing added to them", () => {
  // 4 strips, one in 4 bits. By hand: range² x importance is 0.1 x 16 = 1.6 in strip 0, 1 x 2 = 2 in strip 3.
  const weights = new Float32Array(64);
  [weights[5], weights[48 + 5]] = [Math.sqrt(0.1), 1];
  const importance = ones(64).fill(2 / 16, 48);
  assertEquals([...fitStripScales(PAPER_LAYOUT, weights, 1, importance, "minmax").scales.fourBit], [0, 0, 0, 1]);
  // 10 x 0.16 = 1.6 in strip 0, 1 x 3.2 = 3.2 in strip 3.
  [weights[5], weights[48 + 5]] = [Math.sqrt(10), 1];
  importance.fill(0.01, 0, 16).fill(0.2, 48);
  assertEquals([...fitStripScales(PAPER_LAYOUT, weights, 1, importance, "minmax").scales.fourBit], [0, 0, 0, 1]);
});

Deno.test("fitStripScales: second-order scales by hand", () => {
  // Greenbit-like: scales 15, 5 and 0.4 of 3 rows on d = 1; 0.4 rounds to the code 0.
  const weights = Float32Array.from({ length: 48 }, (_, i) => i % 16 === 0 ? 0 : [45, 15, 1.2][Math.floor(i / 16)]);
  const { scales } = fitStripScales(greenbitLayout(16), weights, 3, ones(16), "minmax");
  assertEquals([...scales.tileScale], [1]);
  assertEquals([...scales.scaleCodes], [15, 5, 0]);
  // Paper: 3-bit codes with a 4-bit offset. Scales 20, 13 and 17: d = max(7 / 7, 20 / 22) = 1, offset 13.
  const ranges = [60, 39, 51];
  const paper = Float32Array.from({ length: 48 }, (_, i) => i % 16 === 0 ? 0 : ranges[Math.floor(i / 16)]);
  const { scales: offset } = fitStripScales(PAPER_LAYOUT, paper, 3, ones(16), "minmax");
  assertEquals([[...offset.tileScale], [...offset.tileOffset]], [[1], [13]]);
  assertEquals([...offset.scaleCodes], [7, 0, 4]);
});

Deno.test("quantizeStrips: the paper's layout with two wide groups keeps 4-bit strips within half a step", () => {
  // 36 strips, 9 in 4 bits: the loud ones, each eight times louder than the rest; the ninth is a wide group of its own.
  const [rows, channels] = [5, 36 * 16];
  const loud = (channel: number) => Math.floor(channel / 16) % 4 === 1;
  const weights = normals(1, rows * channels).map((weight, i) =>
    loud(i % channels) ? 8 * weight * (1 + i % 3) : weight
  );
  for (const search of ["minmax", "weighted_error"] as const) {
    const tensor = quantizeStrips(weights, rows, channels, { layout: PAPER_LAYOUT, search });
    assertEquals(tensor.scales.length, rows * 2);
    if (search === "weighted_error") continue;
    const decoded = dequantizeStrips(tensor);
    const last = 33 * 16; // the ninth loud strip
    for (let i = 0; i < weights.length; i++) {
      const channel = i % channels;
      if (!loud(channel)) continue;
      const scale = tensor.scales[Math.floor(i / channels) * 2 + (channel >= last ? 1 : 0)];
      // Half a step, half a step more where the rounded integer zero cuts an end off.
      assert(Math.abs(weights[i] - decoded[i]) < 1.02 * scale, `weight ${i}: ${decoded[i]}, must be ${weights[i]}`);
    }
  }
});

/** Error that a group keeps with a clip factor: GPTQ's scale and zero on a shrunk range, nearest codes. */
function clippedError(weights: readonly number[], importance: Float64Array, clip: number): number {
  const [min, max] = [clip * Math.min(0, ...weights), clip * Math.max(0, ...weights)];
  const scale = Math.f16round((max - min) / 3);
  const zero = Math.min(3, Math.round(-min / scale));
  const values = [0, 1, 2, 3].map((code) => (code - zero) * scale);
  return weights.reduce(
    (sum, weight, i) => sum + importance[i] * Math.min(...values.map((value) => (weight - value) ** 2)),
    0,
  );
}

Deno.test("quantizeStrips: the weighted search takes the best of the clip factors 1, 0.95 ... 0.4", () => {
  const [rows, channels] = [20, 16];
  const weights = normals(2, rows * channels);
  const feedback = prepareFeedback(correlatedHessian(3, channels), { damping: 0.01, order: "natural" });
  const importance = feedback.diagonal;
  const { scales } = fitStripScales(plainLayout(2, 16), weights, rows, importance, "weighted_error");
  for (let row = 0; row < rows; row++) {
    const own = [...weights.subarray(row * channels, (row + 1) * channels)];
    const best = Math.min(...Array.from({ length: 13 }, (_, i) => clippedError(own, importance, 1 - 0.05 * i)));
    const values = [0, 1, 2, 3].map((code) => (code - scales.zeros[row]) * scales.scales[row]);
    const found = own.map((weight, i) => importance[i] * Math.min(...values.map((value) => (weight - value) ** 2)));
    assertClose([found.reduce((sum, error) => sum + error, 0)], [best], 1e-9 * best);
  }
});

Deno.test("quantizeStrips: better searches and more bits lower the error", () => {
  const [rows, channels] = [32, 256];
  const weights = normals(4, rows * channels);
  const errorOf = (layout: Parameters<typeof quantizeStrips>[3]["layout"], search: "minmax" | "weighted_error") => {
    const decoded = dequantizeStrips(quantizeStrips(weights, rows, channels, { layout, search }));
    return weights.reduce((sum, weight, i) => sum + (weight - decoded[i]) ** 2, 0);
  };
  const wide = errorOf(plainLayout(2, 128), "minmax");
  const narrow = errorOf(plainLayout(2, 16), "minmax");
  const searched = errorOf(plainLayout(2, 16), "weighted_error");
  const four = errorOf(plainLayout(4, 16), "weighted_error");
  assert(four < searched && searched < narrow && narrow < wide, `${[four, searched, narrow, wide]}`);
  assert(errorOf(PAPER_LAYOUT, "weighted_error") < errorOf(greenbitLayout(16), "weighted_error"));
});
