import { quantizeStrips, type StripSettings } from "../../quant/baselines/strips.ts";
import { dequantize } from "../../quant/dequantize.ts";
import { type Feedback, type FeedbackSettings, prepareFeedback } from "../../quant/error_feedback.ts";
import { validatePackedTensor } from "../../quant/packed_tensor.ts";
import { greenbitLayout, PAPER_LAYOUT, plainLayout } from "../../quant/baselines/strip_layout.ts";
import { dequantizeStrips } from "../../quant/baselines/strip_tensor.ts";
import { quantizeTwobit, type TwobitSettings } from "../../quant/twobit.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { assertFinite, assertSameTensor, correlatedHessian, normals, SETTINGS } from "./helpers.ts";

const WITH_OUTLIERS: TwobitSettings = { ...SETTINGS, outliers: { share: 0.01, groups: "both", rule: "error" } };

/** Quantizes, checks what is stored and decodes. */
type Method = (weights: Float32Array, rows: number, channels: number, feedback?: Feedback) => Float32Array;

const twobit = (settings: TwobitSettings): Method => (weights, rows, channels, feedback) => {
  const tensor = quantizeTwobit(weights, rows, channels, settings, feedback && { feedback });
  validatePackedTensor(tensor);
  return dequantize(tensor);
};

const baseline = (settings: StripSettings): Method => (weights, rows, channels, feedback) =>
  dequantizeStrips(quantizeStrips(weights, rows, channels, settings, feedback && { feedback }));

const TWOBIT: readonly (readonly [string, Method])[] = [
  ["twobit", twobit(SETTINGS)],
  ["twobit, outliers", twobit(WITH_OUTLIERS)],
  [
    "twobit, magnitude, strips, 1 in 16",
    twobit({
      ...SETTINGS,
      refineEvery: 16,
      pick: "strip",
      outliers: { share: 0.02, groups: "two_bit", rule: "magnitude" },
    }),
  ],
  ["twobit, range_hessian, 1 in 2", twobit({ ...SETTINGS, refineEvery: 2, pick: "range_hessian" })],
  ["twobit, none refined", twobit({ ...SETTINGS, refineEvery: "none" })],
  ["twobit, all refined", twobit({ ...SETTINGS, refineEvery: 1 })],
];

const BASELINES: readonly (readonly [string, Method])[] = [
  plainLayout(2, 16),
  plainLayout(2, 128),
  greenbitLayout(16),
  PAPER_LAYOUT,
]
  .flatMap((layout) =>
    (["minmax", "weighted_error"] as const).map((search) =>
      [`${layout.id}, ${search}`, baseline({ layout, search })] as const
    )
  );

const METHODS = [...TWOBIT, ...BASELINES];

/** No feedback, and feedback from correlated inputs. */
function feedbacks(channels: number): (Feedback | undefined)[] {
  return [undefined, prepareFeedback(correlatedHessian(channels, channels), { damping: 0.01, order: "groups" })];
}

/** Runs all methods with and without feedback; every result must be finite. */
function forAll(
  weights: Float32Array,
  rows: number,
  channels: number,
  check?: (decoded: Float32Array, name: string) => void,
  methods = METHODS,
): void {
  for (const feedback of feedbacks(channels)) {
    for (const [name, method] of methods) {
      const decoded = method(weights, rows, channels, feedback);
      assertEquals(decoded.length, rows * channels, name);
      assertFinite(decoded);
      check?.(decoded, `${name}${feedback ? ", feedback" : ""}`);
    }
  }
}

const largestError = (weights: Float32Array, decoded: Float32Array) =>
  weights.reduce((worst, weight, i) => Math.max(worst, Math.abs(weight - decoded[i])), 0);

Deno.test("degenerate: an all-zero matrix decodes to zeros, without outliers", () => {
  forAll(new Float32Array(20 * 130), 20, 130, (decoded, name) => assert(decoded.every((value) => value === 0), name));
  assertEquals(quantizeTwobit(new Float32Array(512), 4, 128, WITH_OUTLIERS).outlierChannel.length, 0);
});

Deno.test("degenerate: a constant matrix keeps its value within 3 %", () => {
  for (const value of [0.5, -0.02]) {
    const weights = new Float32Array(18 * 144).fill(value);
    for (const [name, method] of METHODS) {
      const error = largestError(weights, method(weights, 18, 144)) / Math.abs(value);
      assert(error < 0.03, `${name}: error ${error} of the value`);
    }
    forAll(weights, 18, 144);
  }
});

Deno.test("degenerate: a constant row among others keeps its value within a scale step", () => {
  const [rows, channels] = [17, 128];
  const weights = normals(1, rows * channels);
  weights.fill(0.5, 3 * channels, 4 * channels);
  for (const [name, method] of METHODS) {
    const decoded = method(weights, rows, channels).subarray(3 * channels, 4 * channels);
    // The scale codes of the tile are as coarse as its loudest row asks for: scale codes 1 .. 4 of 15 serve this row.
    assert(decoded.every((value) => Math.abs(value - 0.5) < 0.25), `${name}: ${decoded}`);
  }
  forAll(weights, rows, channels);
});

Deno.test("degenerate: one huge weight spoils its group column only", () => {
  const [rows, channels, at] = [16, 256, 5 * 256 + 40];
  const weights = normals(2, rows * channels, 0.02);
  const loud = weights.slice();
  loud[at] = 10_000;
  for (const [name, method] of TWOBIT) {
    const [before, after] = [weights, loud].map((matrix) => method(matrix, rows, channels));
    assert(Math.abs(after[at] - 10_000) < 3000, `${name}: ${after[at]}`);
    if (name === "twobit" || name === "twobit, none refined") {
      const changed = [...after.keys()].filter((i) => after[i] !== before[i] && Math.floor((i % channels) / 16) !== 2);
      // The refined group of the same row and block moves to the huge weight.
      for (const i of changed) {
        assert(name === "twobit" && Math.floor(i / 128) === Math.floor(at / 128), `${name}: ${i}`);
      }
    }
  }
  const exact = dequantize(quantizeTwobit(loud, rows, channels, WITH_OUTLIERS));
  assert(Math.abs(exact[at] - 10_000) <= 4); // half a unit in the last place of f16
  assert(largestError(loud, exact) <= 4 && largestError(weights.slice(0, at), exact.slice(0, at)) < 0.05);
  forAll(loud, rows, channels);
});

Deno.test("degenerate: weights below f16's smallest scale decode to zeros", () => {
  const subnormal = normals(3, 17 * 129, 1e-40);
  forAll(subnormal, 17, 129, (decoded, name) => assert(decoded.every((value) => value === 0), name));
  const small = normals(4, 17 * 129, 1e-6); // scales between 0 and a few f16 subnormals
  forAll(small, 17, 129, (decoded, name) => assert(decoded.every((value) => Math.abs(value) < 2e-5), name));
});

Deno.test("degenerate: large weights are kept while f16 scales reach them and refused beyond", () => {
  const [rows, channels] = [4, 64];
  const large = normals(5, rows * channels, 20_000);
  forAll(large, rows, channels, (decoded, name) => {
    if (!name.endsWith("feedback")) assert(largestError(large, decoded) < 60_000, name);
  });
  for (const scale of [1e8, 1e30, 3e37]) {
    const huge = normals(6, rows * channels, scale);
    for (const feedback of feedbacks(channels)) {
      for (const [name, method] of METHODS) {
        assertThrows(
          () => method(huge, rows, channels, feedback),
          RangeError,
          "must be at most 65504",
          `${name} ${scale}`,
        );
      }
    }
  }
});

Deno.test("degenerate: one weight beyond f16's range is refused, never clipped in silence", () => {
  const [rows, channels] = [2, 128];
  const weights = normals(7, rows * channels);
  weights[5] = 1e30;
  for (const [name, method] of METHODS) {
    assertThrows(() => method(weights, rows, channels), RangeError, "must be at most 65504", name);
  }
});

Deno.test("degenerate: NaN and infinity are refused with their place", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    const weights = normals(8, 3 * 40);
    weights[2 * 40 + 7] = bad;
    for (const feedback of feedbacks(40)) {
      for (const [name, method] of METHODS) {
        const message = `weight of row 2, channel 7 is ${bad}, must be finite`;
        assertThrows(() => method(weights, 3, 40, feedback), RangeError, message, name);
      }
    }
  }
});

Deno.test("degenerate: rows that don't fill tiles, channels that don't fill groups or blocks", () => {
  for (const rows of [1, 15, 16, 17]) {
    for (const channels of [1, 2, 15, 16, 17, 100, 127, 128, 129, 250]) {
      const weights = normals(rows * channels, rows * channels);
      for (const [name, method] of METHODS) {
        const decoded = method(weights, rows, channels);
        assertFinite(decoded);
        // Better than all zeros in every shape.
        const error = weights.reduce((sum, weight, i) => sum + (weight - decoded[i]) ** 2, 0);
        const energy = weights.reduce((sum, weight) => sum + weight ** 2, 0);
        assert(error < 0.6 * energy, `${name}, ${rows} x ${channels}: error ${error} of ${energy}`);
      }
    }
  }
  for (const [rows, channels] of [[1, 1], [1, 17], [17, 1], [17, 129]]) {
    forAll(normals(rows + channels, rows * channels), rows, channels);
  }
});

Deno.test("degenerate: an empty or misshapen matrix is refused", () => {
  for (const [name, method] of METHODS) {
    const none = new Float32Array(0);
    for (const [rows, channels] of [[0, 16], [16, 0], [0, 0]]) {
      assertThrows(
        () => method(none, rows, channels),
        RangeError,
        `matrix is ${rows} x ${channels}, must not be empty`,
        name,
      );
    }
    const message = "matrix of 4 x 16 has 63 weights, must have 64";
    assertThrows(() => method(new Float32Array(63), 4, 16), TypeError, message, name);
    const feedback = prepareFeedback(correlatedHessian(1, 16), { damping: 0.01, order: "natural" });
    assertThrows(() => method(normals(1, 64), 2, 32, feedback), TypeError, "16", name);
  }
});

const CHANNELS = 40;
const DAMPED: FeedbackSettings = { damping: 0.01, order: "groups" };
const hessianOf = (value: (i: number, j: number) => number) =>
  Float64Array.from({ length: CHANNELS ** 2 }, (_, at) => value(Math.floor(at / CHANNELS), at % CHANNELS));

/** Hessians that a defined result comes from. */
const HESSIANS: readonly (readonly [string, Float64Array])[] = [
  ["zero", hessianOf(() => 0)],
  ["rank deficient", correlatedHessian(1, CHANNELS, 12)],
  ["rank one", hessianOf((i, j) => (1 + i % 5) * (1 + j % 5))],
  ["indefinite", hessianOf((i, j) => i === j ? 1 : ((i + 1) * (j + 1)) % 3 === 1 ? 0.9 : -0.9)],
  ["zero diagonal", hessianOf((i, j) => i === j ? 0 : 0.1)],
  [
    "dead channel",
    correlatedHessian(2, CHANNELS).map((value, at) =>
      at % CHANNELS === 7 || Math.floor(at / CHANNELS) === 7 ? 0 : value
    ),
  ],
  ["huge", correlatedHessian(3, CHANNELS).map((value) => value * 1e150)],
  ["tiny", correlatedHessian(3, CHANNELS).map((value) => value * 1e-150)],
];

Deno.test("degenerate: singular, indefinite, huge and tiny Hessians give finite weights no worse than zeros", () => {
  const rows = 18;
  const weights = normals(9, rows * CHANNELS);
  const energy = weights.reduce((sum, weight) => sum + weight ** 2, 0);
  for (const [hessianName, hessian] of HESSIANS) {
    for (const order of ["natural", "groups"] as const) {
      const feedback = prepareFeedback(hessian, { damping: 0.01, order });
      assertFinite(feedback.coefficients);
      for (const [name, method] of METHODS) {
        const decoded = method(weights, rows, CHANNELS, feedback);
        assertFinite(decoded);
        const error = weights.reduce((sum, weight, i) => sum + (weight - decoded[i]) ** 2, 0);
        assert(error < 1.5 * energy, `${hessianName}, ${name}: error ${error} of ${energy}`);
      }
    }
  }
});

Deno.test("degenerate: a zero Hessian quantizes as no Hessian does", () => {
  const weights = normals(10, 18 * CHANNELS);
  const feedback = prepareFeedback(hessianOf(() => 0), DAMPED);
  assertEquals([...feedback.coefficients], [...hessianOf((i, j) => i === j ? 1 : 0)]);
  assertSameTensor(
    quantizeTwobit(weights, 18, CHANNELS, SETTINGS, { feedback }),
    quantizeTwobit(weights, 18, CHANNELS, SETTINGS),
  );
});

Deno.test("degenerate: a dead channel doesn't touch the others", () => {
  const dead = 7;
  const hessian = HESSIANS.find(([name]) => name === "dead channel")![1];
  const feedback = prepareFeedback(hessian, { damping: 0.01, order: "natural" });
  const weights = normals(11, 4 * CHANNELS);
  const moved = weights.slice();
  for (let row = 0; row < 4; row++) {
    // Both lie inside their group's range, so the scale is the same.
    weights[row * CHANNELS + dead] = 0.1;
    moved[row * CHANNELS + dead] = -0.2;
  }
  const method = baseline({ layout: plainLayout(2, 16), search: "minmax" });
  const [a, b] = [weights, moved].map((matrix) => method(matrix, 4, CHANNELS, feedback));
  a.forEach((value, i) => assert(i % CHANNELS === dead || value === b[i]));
});

Deno.test("degenerate: NaN, infinite, negative definite and misshapen Hessians are refused", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const at of [0, 83, CHANNELS * CHANNELS - 1]) {
      const hessian = correlatedHessian(1, CHANNELS);
      hessian[at] = bad;
      assertThrows(
        () => prepareFeedback(hessian, DAMPED),
        RangeError,
        `Hessian holds ${bad} at element ${at}, must be finite`,
      );
    }
  }
  assertThrows(
    () => prepareFeedback(hessianOf((i, j) => i === j ? -1 : 0), DAMPED),
    RangeError,
    "not positive definite",
  );
  assertThrows(
    () => prepareFeedback(new Float64Array(10), DAMPED),
    TypeError,
    "Hessian has 10 elements, must be a square",
  );
});
