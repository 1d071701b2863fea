import { SETTINGS } from "../../quant/recipe.ts";
import { reportQuantization } from "../../quant/report.ts";
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
