import { totalBits } from "../../quant/bits.ts";
import fc from "fast-check";
import { greenbitLayout, PAPER_LAYOUT, plainLayout, type StripLayout } from "../../quant/baselines/strip_layout.ts";
import { channelWeightsOf } from "../../quant/channel_weights.ts";
import { concatenateRows } from "../../quant/concatenate.ts";
import { dequantize } from "../../quant/dequantize.ts";
import { type Feedback, prepareFeedback } from "../../quant/error_feedback.ts";
import { REFINE_EVERY } from "../../quant/format.ts";
import { unpack } from "../../quant/pack.ts";
import { validatePackedTensor } from "../../quant/packed_tensor.ts";
import {
  dequantizeStored,
  independentParts,
  joinStored,
  quantizedBits,
  quantizeMatrix,
  type Quantizer,
  sliceStored,
  storedBytes,
} from "../../quant/quantize.ts";
import { createRandom } from "../../quant/random.ts";
import { shiftToTarget } from "../../quant/target.ts";
import { quantizeTwobit, type TwobitPart, type TwobitSettings } from "../../quant/twobit.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { assertSameTensor, correlatedHessian, normals, objective, SETTINGS, squaredError } from "./helpers.ts";

const OUTLIERS: TwobitSettings["outliers"] = { share: 0.004, groups: "both", rule: "error" };

Deno.test("quantizeTwobit: any split into tile ranges, joined, is the whole, bit for bit", () => {
  const [rows, channels, tiles] = [85, 150, 6]; // the last tile has 5 rows
  const weights = normals(1, rows * channels);
  const feedback = prepareFeedback(correlatedHessian(2, channels, 200), { damping: 0.01, order: "groups" });
  const correlation = normals(3, rows * channels);
  const cases: (readonly [TwobitSettings, boolean])[] = [
    [{ ...SETTINGS, pick: "random", seed: 77, outliers: OUTLIERS }, false],
    [{ ...SETTINGS, outliers: { ...OUTLIERS, share: 0.0002 } }, true], // less than an outlier a tile
    [{ ...SETTINGS, refineEvery: 16, pick: "strip" }, true],
  ];
  for (const [settings, informed] of cases) {
    const quantize = (first: number, last: number) => {
      const part = correlation.subarray(first * 16 * channels, Math.min(rows, last * 16) * channels);
      const input = informed ? { feedback, correlation: part } : undefined;
      return quantizeTwobit(weights, rows, channels, settings, { ...input, tiles: [first, last] });
    };
    const whole = quantize(0, tiles);
    const splits = fc.uniqueArray(fc.integer({ min: 1, max: tiles - 1 }), { maxLength: tiles - 1 });
    fc.assert(
      fc.property(splits, (cuts) => {
        const bounds = [0, ...cuts.sort((a, b) => a - b), tiles];
        const parts = bounds.slice(1).map((last, i) => quantize(bounds[i], last));
        assertSameTensor(concatenateRows(parts), whole);
      }),
      { seed: 3, numRuns: 5 },
    );
  }
});

Deno.test("quantizeMatrix: the independent parts, joined, are the whole", () => {
  const [rows, channels] = [50, 128];
  const weights = normals(4, rows * channels);
  const quantizer: Quantizer = { kind: "twobit", settings: { ...SETTINGS, outliers: OUTLIERS } };
  assertEquals(independentParts(rows, quantizer, 3), [[0, 3], [3, 4]]);
  const parts = independentParts(rows, quantizer, 3)
    .map((tiles) => quantizeMatrix({ weights, rows, channels }, quantizer, { tiles }));
  const joined = joinStored(parts);
  const whole = quantizeMatrix({ weights, rows, channels }, quantizer);
  assert(joined.kind === "twobit" && whole.kind === "twobit");
  assertSameTensor(joined.tensor, whole.tensor);
  assertEquals(totalBits(quantizedBits(rows, channels, quantizer)), 8 * storedBytes(whole));
});

Deno.test("sliceStored: pairs of tiles of any kind, joined and decoded, are the whole", () => {
  const [rows, channels] = [101, 256];
  const matrix = { weights: normals(4, rows * channels), rows, channels };
  const strips = (layout: StripLayout): Quantizer => ({ kind: "strips", settings: { layout, search: "minmax" } });
  const quantizers: Quantizer[] = [
    { kind: "twobit", settings: { ...SETTINGS, outliers: OUTLIERS } },
    { kind: "q2_k" },
    ...[plainLayout(2, 16), greenbitLayout(32), PAPER_LAYOUT].map(strips),
  ];
  for (const quantizer of quantizers) {
    const whole = quantizeMatrix(matrix, quantizer);
    const parts = [[0, 2], [2, 6], [6, 7]].map(([first, end]) => sliceStored(whole, first, end));
    assertEquals(joinStored(parts), whole);
    assertEquals(parts.flatMap((part) => [...dequantizeStored(part)]), [...dequantizeStored(whole)]);
  }
});

Deno.test("quantizeMatrix: parts of baselines, joined, are the whole, but for layouts whose strips are picked by all rows", () => {
  const [rows, channels] = [100, 256];
  const matrix = { weights: normals(4, rows * channels), rows, channels };
  const diagonal = Float64Array.from({ length: channels }, (_, i) => 1 + i % 7);
  const settings = (layout: StripLayout) => ({ layout, search: "weighted_error" as const });
  const quantizers: Quantizer[] = [
    { kind: "q2_k" },
    { kind: "q2_k", weighsChannels: true },
    { kind: "strips", settings: settings(plainLayout(2, 16)) },
    { kind: "strips", settings: settings(greenbitLayout(32)) },
  ];
  for (const quantizer of quantizers) {
    const known = quantizer.weighsChannels ? { diagonal } : {};
    const tiles = independentParts(rows, quantizer, 2);
    assertEquals(tiles, [[0, 2], [2, 4], [4, 6], [6, 7]]);
    const parts = tiles.map((tiles) => quantizeMatrix(matrix, quantizer, { ...known, tiles }));
    assertEquals(joinStored(parts), quantizeMatrix(matrix, quantizer, known));
  }
  const odd = [0, 1].map((tile) => quantizeMatrix(matrix, quantizers[3], { tiles: [tile, tile + 1] }));
  assertThrows(() => joinStored(odd), TypeError, "must be a multiple of 32");
  assertEquals(independentParts(rows, { kind: "strips", settings: settings(PAPER_LAYOUT) }, 2), [[0, 7]]);
});

Deno.test("concatenateRows: refuses parts that don't fit", () => {
  const part = (rows: number, channels: number, refineEvery: TwobitSettings["refineEvery"]) =>
    quantizeTwobit(normals(1, rows * channels), rows, channels, { ...SETTINGS, refineEvery });
  const whole = part(16, 128, 8);
  assertThrows(() => concatenateRows([whole, part(16, 256, 8)]), TypeError, "part 1 has 256 channels");
  assertThrows(() => concatenateRows([whole, part(16, 128, 4)]), TypeError, "1 refined group in 4");
  assertThrows(
    () => concatenateRows([part(15, 128, 8), whole]),
    TypeError,
    "part 0 has 15 rows, must be a multiple of 16",
  );
  assertEquals(concatenateRows([whole, part(15, 128, 8)]).rows, 31);
});

/**
 * Weights on the grid of a tensor that the search can find: every group uses its lowest and highest code (code 12 in
 * a refined group: range 3 * scale, so that the probe tries that scale), and each tile column has a row with scale code 15.
 */
function gridWeights(seed: number, rows: number, channels: number, refinedGroup: (row: number) => number) {
  const random = createRandom(seed);
  const weights = new Float32Array(rows * channels);
  const zeroCodes: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < channels; start += 16) {
      const group = start / 16;
      const refined = refinedGroup(row) === group % 8;
      const d = 2 ** -(4 + (group % 5)); // of the tile column
      const scale = (row % 16 === 3 ? 15 : 5 + random.integer(11)) * d;
      const zeroCode = random.integer(8);
      zeroCodes.push(zeroCode);
      for (let k = 0; k < 16; k++) {
        const code = refined ? (k === 0 ? 0 : k === 1 ? 12 : random.integer(13)) : k < 4 ? k : random.integer(4);
        const position = refined ? code / 4 - (1.21875 + 0.1875 * zeroCode) : code - (0.625 + 0.25 * zeroCode);
        weights[row * channels + start + k] = position * scale;
      }
    }
  }
  return { weights, zeroCodes };
}

Deno.test("quantizeTwobit: reproduces weights that lie on the 2-bit grid, codes and all", () => {
  const [rows, channels] = [40, 384];
  const { weights, zeroCodes } = gridWeights(5, rows, channels, () => -1);
  const tensor = quantizeTwobit(weights, rows, channels, { ...SETTINGS, refineEvery: "none" });
  assertEquals(dequantize(tensor), weights);
  assertEquals([...unpack(tensor).zeroCodes], zeroCodes);
});

Deno.test("quantizeTwobit: finds the refined groups of weights that lie on the mixed grid and reproduces them", () => {
  const [rows, channels] = [40, 256];
  const { weights } = gridWeights(6, rows, channels, (row) => (row * 5) % 8);
  const tensor = quantizeTwobit(weights, rows, channels, SETTINGS);
  assertEquals(dequantize(tensor), weights);
  const { refined } = unpack(tensor);
  refined.forEach((one, i) => assertEquals(one, i % 8 === (Math.floor(i / 16) * 5) % 8 ? 1 : 0));
});

for (const weighed of [false, true]) {
  const what = weighed ? ", channels weighed" : "";
  Deno.test(`quantizeTwobit: no other scale and zero code of a group would do better under its tile's scale${what}`, () => {
    const [rows, channels] = [16, 128];
    const weights = normals(20, rows * channels);
    const channelWeights = Float64Array.from({ length: channels }, (_, i) => weighed ? 4 ** (i % 5) : 1);
    const tensor = quantizeTwobit(weights, rows, channels, SETTINGS, weighed ? { channelWeights } : {});
    const { refined, tileScale } = unpack(tensor);
    const decoded = dequantize(tensor);
    for (let group = 0; group < rows * 8; group++) {
      const own = weights.subarray(group * 16, group * 16 + 16);
      const counts = channelWeights.subarray((group % 8) * 16, (group % 8) * 16 + 16);
      let best = Infinity;
      for (let code = 0; code < 128; code++) {
        const scale = (code >> 3) * tileScale[group % 8];
        const values = refined[group]
          ? Array.from({ length: 16 }, (_, c) => (c / 4 - 1.21875 - 0.1875 * (code % 8)) * scale)
          : Array.from({ length: 4 }, (_, c) => (c - 0.625 - 0.25 * (code % 8)) * scale);
        best = Math.min(
          best,
          own.reduce(
            (sum, weight, k) => sum + counts[k] * Math.min(...values.map((value) => (weight - value) ** 2)),
            0,
          ),
        );
      }
      const found = decoded.subarray(group * 16, group * 16 + 16);
      const error = own.reduce((sum, weight, k) => sum + counts[k] * (weight - found[k]) ** 2, 0);
      assert(error < best * (1 + 1e-6) + 1e-6, `group ${group}: error ${error}, could be ${best}`);
    }
  });
}

Deno.test("quantizeTwobit: weights of channels are refused where they don't fit or there is feedback", () => {
  const weights = normals(20, 16 * 128);
  const quantize = (part: TwobitPart) => quantizeTwobit(weights, 16, 128, SETTINGS, part);
  const channelWeights = new Float64Array(127).fill(1);
  assertThrows(() => quantize({ channelWeights }), TypeError, "127 channel weights are given, must be 128");
  const feedback = prepareFeedback(correlatedHessian(1, 128), { damping: 0.1, order: "groups" });
  const both = { feedback, channelWeights: new Float64Array(128).fill(1) };
  assertThrows(() => quantize(both), TypeError, "channel weights are given with feedback, must be without it");
});

Deno.test("channelWeightsOf: the diagonal over its mean, all alike where it is zero, refused where it is no number", () => {
  assertEquals([...channelWeightsOf(Float64Array.of(2, 0, 4, 2))], [1, 0, 2, 1]);
  assertEquals([...channelWeightsOf(new Float64Array(2))], [1, 1]);
  for (const bad of [NaN, Infinity, -1]) {
    assertThrows(() => channelWeightsOf(Float64Array.of(1, bad)), RangeError, `${bad} on its diagonal at 1`);
  }
});

Deno.test("quantizeTwobit: more refined groups never raise the error", () => {
  for (const seed of [1, 2]) {
    for (const pick of ["error", "random", "strip"] as const) {
      const [rows, channels] = [32, 256];
      const weights = normals(seed, rows * channels);
      const errors = REFINE_EVERY.map((refineEvery) =>
        squaredError(weights, dequantize(quantizeTwobit(weights, rows, channels, { ...SETTINGS, refineEvery, pick })))
      );
      errors.forEach((error, i) => assert(i === 0 || error < errors[i - 1], `${pick}: ${errors}`));
    }
  }
});

Deno.test("quantizeTwobit: outliers lower the error, the more the lower", () => {
  const [rows, channels] = [32, 256];
  const random = createRandom(8);
  const weights = normals(7, rows * channels).map((weight) => random.uniform() < 0.004 ? 6 * weight : weight);
  const feedback = prepareFeedback(correlatedHessian(9, channels, 400), { damping: 0.01, order: "groups" });
  for (const groups of ["two_bit", "four_bit", "both"] as const) {
    for (const rule of ["error", "magnitude"] as const) {
      const errors = [0, 0.001, 0.004].map((share) => {
        const tensor = quantizeTwobit(weights, rows, channels, { ...SETTINGS, outliers: { share, groups, rule } });
        assertEquals(tensor.outlierChannel.length, 2 * Math.round(share * 16 * channels));
        return squaredError(weights, dequantize(tensor));
      });
      assert(errors[2] < errors[1] && errors[1] < errors[0], `${groups} ${rule}: ${errors}`);
    }
  }
  const hessian = correlatedHessian(9, channels, 400);
  const [without, withOutliers] = [0, 0.004].map((share) => {
    const settings: TwobitSettings = { ...SETTINGS, outliers: { share, groups: "two_bit", rule: "error" } };
    return objective(weights, dequantize(quantizeTwobit(weights, rows, channels, settings, { feedback })), hessian);
  });
  assert(withOutliers < without, `objective ${withOutliers}, without outliers ${without}`);
});

Deno.test("quantizeTwobit: feedback lowers the objective, the identity Hessian changes nothing", () => {
  const [rows, channels] = [20, 200];
  const weights = normals(11, rows * channels);
  const hessian = correlatedHessian(12, channels);
  const plain = quantizeTwobit(weights, rows, channels, SETTINGS);
  const before = objective(weights, dequantize(plain), hessian);
  for (const order of ["natural", "groups"] as const) {
    const feedback = prepareFeedback(hessian, { damping: 0.01, order });
    const after = objective(
      weights,
      dequantize(quantizeTwobit(weights, rows, channels, SETTINGS, { feedback })),
      hessian,
    );
    assert(after < 0.6 * before, `${order}: ${after}, without feedback ${before}`);
  }
  const identity = Float64Array.from({ length: channels ** 2 }, (_, i) => i % (channels + 1) === 0 ? 1 : 0);
  const feedback = prepareFeedback(identity, { damping: 0, order: "natural" });
  assertSameTensor(quantizeTwobit(weights, rows, channels, SETTINGS, { feedback }), plain);
});

/**
 * Plays the feedback again from nothing but the decoded weights: each must be the nearest value of its group's grid to
 * what the errors of all channels before it ask for, and an outlier must be that within its residual's rounding.
 */
function replay(weights: Float32Array, tensor: ReturnType<typeof quantizeTwobit>, feedback: Feedback): void {
  const { rows, channels, scaleCodes, zeroCodes, refined, tileScale, outliers } = unpack(tensor);
  const decoded = dequantize(tensor);
  const groups = scaleCodes.length / rows;
  // Within a group, the search takes an outlier as exact; its residual is an f16.
  const slack = outliers.channel.length === 0 ? 1e-9 : 2 ** -10;
  for (let row = 0; row < rows; row++) {
    const own = outliers.channel.subarray(outliers.start[row] ?? 0, outliers.start[row + 1] ?? 0);
    const errors: number[] = [];
    feedback.order.forEach((channel, k) => {
      const at = row * channels + channel;
      let wanted = weights[at];
      errors.forEach((error, i) => wanted += error * feedback.coefficients[k * channels + i]);
      errors.push(weights[at] - decoded[at]);
      const group = row * groups + (channel >> 4);
      const scale = scaleCodes[group] * tileScale[(row >> 4) * groups + (channel >> 4)];
      const far = Math.abs(wanted - decoded[at]);
      if (own.includes(channel)) {
        assert(far < slack * (1 + Math.abs(wanted)), `outlier ${row}, ${channel}: ${decoded[at]}, wanted ${wanted}`);
        return;
      }
      const nearest = refined[group]
        ? Array.from({ length: 16 }, (_, code) => (code / 4 - 1.21875 - 0.1875 * zeroCodes[group]) * scale)
        : Array.from({ length: 4 }, (_, code) => (code - 0.625 - 0.25 * zeroCodes[group]) * scale);
      const least = Math.min(...nearest.map((value) => Math.abs(value - wanted)));
      assert(far < least + slack, `weight ${row}, ${channel}: off by ${far}, could be ${least}`);
    });
  }
}

Deno.test("quantizeTwobit: decoded weights are what its error bookkeeping says", () => {
  const [rows, channels] = [20, 150];
  const weights = normals(13, rows * channels);
  const hessian = correlatedHessian(14, channels);
  for (const order of ["natural", "groups"] as const) {
    const feedback = prepareFeedback(hessian, { damping: 0.01, order });
    for (const outliers of [SETTINGS.outliers, OUTLIERS]) {
      const tensor = quantizeTwobit(weights, rows, channels, { ...SETTINGS, outliers }, { feedback });
      validatePackedTensor(tensor);
      replay(weights, tensor, feedback);
    }
  }
});

Deno.test("quantizeTwobit: a correlation moves the target", () => {
  const [rows, channels] = [16, 128];
  const weights = normals(15, rows * channels);
  const feedback = prepareFeedback(correlatedHessian(16, channels), { damping: 0.01, order: "groups" });
  const correlation = normals(17, rows * channels, 30);
  const shifted = shiftToTarget(weights, correlation, feedback);
  assertSameTensor(
    quantizeTwobit(weights, rows, channels, SETTINGS, { feedback, correlation }),
    quantizeTwobit(shifted, rows, channels, SETTINGS, { feedback }),
  );
});

Deno.test("quantizeTwobit: refuses feedback that doesn't fit the matrix or splits its groups", () => {
  const weights = normals(18, 2 * 64);
  for (const channels of [32, 128]) {
    const feedback = prepareFeedback(correlatedHessian(1, channels), { damping: 0.01, order: "natural" });
    assertThrows(() => quantizeTwobit(weights, 2, 64, SETTINGS, { feedback }), TypeError, `${channels}`);
  }
  const feedback = prepareFeedback(correlatedHessian(1, 64), { damping: 0.01, order: "channels" });
  assertThrows(() => quantizeTwobit(weights, 2, 64, SETTINGS, { feedback }), Error, "order");
});

Deno.test("quantizeTwobit: repeats with its seed and leaves its input alone", () => {
  const weights = normals(19, 20 * 130);
  const before = weights.slice();
  const settings: TwobitSettings = { ...SETTINGS, pick: "random", outliers: OUTLIERS };
  const first = quantizeTwobit(weights, 20, 130, settings);
  assertSameTensor(quantizeTwobit(weights, 20, 130, settings), first);
  assertEquals(weights, before);
  const other = quantizeTwobit(weights, 20, 130, { ...settings, seed: 2 });
  assert(other.meta.some((word, i) => word !== first.meta[i]));
});

Deno.test("quantizeTwobit: strips are the same in every tile, and picked by the whole matrix", () => {
  // The first tile alone would pick group 1, the whole matrix picks group 2.
  const [rows, channels] = [48, 128];
  const weights = normals(9, rows * channels);
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < 16; k++) {
      if (row < 16) weights[row * channels + 16 + k] *= 6;
      weights[row * channels + 32 + k] *= 5;
    }
  }
  const settings: TwobitSettings = { ...SETTINGS, pick: "strip" };
  for (const tiles of [[0, 3], [0, 1], [1, 3]] as const) {
    const { refined } = unpack(quantizeTwobit(weights, rows, channels, settings, { tiles }));
    refined.forEach((one, i) => assertEquals(one, i % 8 === 2 ? 1 : 0));
  }
});

Deno.test("quantizeTwobit: tiles outside the matrix and a correlation that doesn't fit are refused", () => {
  const weights = normals(1, 32 * 128);
  const quantize = (tiles: readonly [number, number]) => quantizeTwobit(weights, 32, 128, SETTINGS, { tiles });
  for (const tiles of [[0, 3], [-1, 1], [1, 1]] as const) {
    assertThrows(() => quantize(tiles), RangeError, "must lie within");
  }
  const identity = Float64Array.from({ length: 128 * 128 }, (_, i) => i % 129 === 0 ? 1 : 0);
  const feedback = prepareFeedback(identity, { damping: 0, order: "groups" });
  const short = { feedback, correlation: new Float32Array(128) };
  assertThrows(() => quantizeTwobit(weights, 32, 128, SETTINGS, short), TypeError, "has 128 weights, must have 4096");
  const alone = { correlation: new Float32Array(32 * 128) };
  assertThrows(() => quantizeTwobit(weights, 32, 128, SETTINGS, alone), TypeError, "without feedback");
});
