import { SETTINGS } from "../../quant/recipe.ts";
import { reportQuantization, weightedError } from "../../quant/report.ts";
import { dequantize } from "../../quant/dequantize.ts";
import { quantizeTwobit } from "../../quant/twobit.ts";
import { unpack } from "../../quant/pack.ts";
import { assertAlmostEquals, assertEquals } from "../assert.ts";
import { normals } from "./helpers.ts";

Deno.test("reportQuantization: squared errors over squared weights, by hand", () => {
  // All weights are packed as zero: the whole energy is lost. One row of 128, of which group 2 is refined.
  const zeros = quantizeTwobit(new Float32Array(128), 1, 128, SETTINGS);
  const { refined } = unpack(zeros);
  const inRefined = refined.indexOf(1) * 16;
  const weights = new Float32Array(128).fill(2);
  assertEquals([1, 1, 1], Object.values(reportQuantization(weights, zeros)).slice(1));
  // Errors of one kind of group count in that kind and in the whole alone.
  const packed = quantizeTwobit(weights, 1, 128, SETTINGS);
  const exact = reportQuantization(weights, packed);
  assertEquals([exact.relativeError, exact.relativeErrorTwoBit, exact.relativeErrorRefined].map((e) => e < 1e-3), [
    true,
    true,
    true,
  ]);
  const loud = zeros.refineEvery === 8 ? Float32Array.from(weights, (_, i) => i === inRefined ? 3 : 0) : weights;
  const found = reportQuantization(loud, zeros);
  assertEquals([found.relativeError, found.relativeErrorTwoBit, found.relativeErrorRefined], [1, 0, 1]);
});

Deno.test("reportQuantization: the error weighted by a Hessian is the energy of the outputs' error, and one by identity", () => {
  const [rows, channels, tokens] = [150, 128, 40];
  const weights = normals(5, rows * channels);
  const tensor = quantizeTwobit(weights, rows, channels, SETTINGS);
  const decoded = dequantize(tensor);
  const identity = Float64Array.from({ length: channels ** 2 }, (_, at) => at % (channels + 1) === 0 ? 1 : 0);
  // Few rows stand for all.
  const plain = reportQuantization(weights, tensor, identity);
  assertAlmostEquals(plain.weightedError! / plain.relativeError, 1, 0.1);
  assertEquals(reportQuantization(weights, tensor).weightedError, undefined);

  // Of one row: the outputs themselves, for inputs of unlike channels; what lies below the diagonal isn't read.
  const inputs = normals(6, tokens * channels).map((x, i) => x * (1 + i % channels));
  const hessian = Float64Array.from({ length: channels ** 2 }, (_, at) => {
    const [i, j] = [Math.floor(at / channels), at % channels];
    if (j < i) return NaN;
    let sum = 0;
    for (let t = 0; t < tokens; t++) sum += inputs[t * channels + i] * inputs[t * channels + j];
    return sum;
  });
  const first = weights.subarray(0, channels);
  let [lost, all] = [0, 0];
  for (let t = 0; t < tokens; t++) {
    let [output, error] = [0, 0];
    for (let i = 0; i < channels; i++) {
      output += first[i] * inputs[t * channels + i];
      error += (first[i] - decoded[i]) * inputs[t * channels + i];
    }
    lost += error ** 2;
    all += output ** 2;
  }
  assertAlmostEquals(weightedError(first, decoded.subarray(0, channels), channels, hessian) / (lost / all), 1, 1e-9);
});

Deno.test("reportQuantization: the whole is the parts, weighted by their energy", () => {
  const weights = normals(3, 4 * 256);
  const tensor = quantizeTwobit(weights, 4, 256, SETTINGS);
  const { refined } = unpack(tensor);
  const { relativeError, relativeErrorTwoBit, relativeErrorRefined } = reportQuantization(weights, tensor);
  let [all, inRefined] = [0, 0];
  weights.forEach((weight, i) => {
    all += weight ** 2;
    if (refined[i >> 4] === 1) inRefined += weight ** 2;
  });
  const share = inRefined / all;
  assertAlmostEquals(relativeError, (1 - share) * relativeErrorTwoBit + share * relativeErrorRefined, 1e-12);
});
