import { judgeAccuracy } from "../../experiments/accuracy.ts";
import { judgeCalibration } from "../../experiments/calibration.ts";
import { judgeFourBitShare } from "../../experiments/four_bit_share.ts";
import { judgeOutliers } from "../../experiments/outliers.ts";
import type { Row } from "../../experiments/results/result.ts";
import type { Evaluation } from "../../model/evaluate/evaluation.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";

const calibrationRow = (text: string, difference: number, error: number): Row => ({
  text,
  ...{ evaluated: "mix", difference, difference_error: error },
});

Deno.test("calibration: the largest difference is shown, the one with the most standard errors decides", () => {
  // 5 errors and 2 errors below 0: the first gains less, the second says less.
  const { measured, status, note } = judgeCalibration([
    calibrationRow("a", -0.01, 0.002),
    calibrationRow("b", -0.02, 0.01),
    { text: "a packed file", evaluated: "mix", file_ratio: 1.3 },
  ]);
  assertEquals([measured, status], ["-1.00 ± 0.20 (calibrated on a, evaluated on mix)", "reproduced"]);
  assertStringIncludes(
    note,
    "Of all 2 cases the one with the most standard errors decides: -2.00 ± 1.00 (calibrated on b",
  );
  // By hand: a sixth of two.
  assertStringIncludes(note, "as one of six cases that don't differ is by chance: some 0.3 of 2.");
});

const CALIBRATIONS: readonly (readonly [differences: readonly number[], status: string])[] = [
  // "Never worse by more than one standard error" is what is claimed: 0.009 is within one, 0.011 and 0.019 are not.
  [[-0.03, -0.011], "reproduced"],
  [[-0.03, 0.009], "reproduced"],
  [[-0.03, 0.011], "partly"],
  [[-0.03, 0.019], "partly"],
  [[-0.03, 0.021], "not reproduced"],
];

for (const [differences, status] of CALIBRATIONS) {
  Deno.test(`calibration: differences of ${differences.join(" and ")}, each ± 0.01, are ${status}`, () => {
    assertEquals(judgeCalibration(differences.map((each) => calibrationRow("a", each, 0.01))).status, status);
  });
}

/** An evaluation that is so many points better than {@linkcode REFERENCE}: of two windows, whose differences give the error. */
const better = (points: number, error: number) =>
  ({
    windowTop1: Float64Array.of(0.5 + (points - error) / 100, 0.5 + (points + error) / 100),
    tasks: [],
  }) as unknown as Evaluation;
const REFERENCE = better(0, 0);

type Loss = readonly [points: number, error: number];

function judgeLosses(plain: Loss, ours: Loss) {
  const losses: Record<string, Loss> = { gptq2_g16: [20, 0.1], greenbit_g16: plain, twobit: ours };
  const others = Object.entries(losses).map(([name, [points, error]]) => [name, better(-points, error)] as const);
  return judgeAccuracy(new Map([["fp16", REFERENCE], ...others]), [{ method: "twobit", perplexity_ratio: 1.2 }]);
}

const LOSSES: readonly (readonly [plain: Loss, ours: Loss, status: string])[] = [
  [[4, 0.2], [1, 0.2], "reproduced"],
  // Ours loses less than half, but more than 3 points.
  [[12, 0.2], [5, 0.1], "partly"],
  // The plain method's 3.1 is within its error of 3.
  [[3.1, 0.2], [1, 0.1], "partly"],
  // Half of 4 is above 1.9 by 0.1, with an error of 0.1 and 0.2 apart: 0.22.
  [[4, 0.2], [1.9, 0.2], "partly"],
  [[2, 0.2], [2, 0.2], "not reproduced"],
];

for (const [plain, ours, status] of LOSSES) {
  Deno.test(`accuracy: losses of ${plain.join(" ± ")} and ${ours.join(" ± ")} are ${status}`, () => {
    assertEquals(judgeLosses(plain, ours).status, status);
  });
}

Deno.test("accuracy: the best plain method stands beside ours, and a loss near the claim is told", () => {
  const { measured, note } = judgeLosses([3.1, 0.2], [1, 0.1]);
  assertEquals(measured, "3.10 ± 0.20 (greenbit_g16), 1.00 ± 0.10 (twobit)");
  assertStringIncludes(note, "The loss of greenbit_g16 differs from 3 by no more than its standard error");
  assertStringIncludes(note, "twobit's perplexity is 1.200 x unquantized");
});

/** Of 20 % more bits, so that gain and error are halved. */
const GAINS: readonly (readonly [gain: number, measured: string, status: string])[] = [
  [0.8, "0.40 ± 0.05", "reproduced"],
  [0.96, "0.48 ± 0.05", "partly"],
  [1.04, "0.52 ± 0.05", "partly"],
  [1.2, "0.60 ± 0.05", "not reproduced"],
];

for (const [gain, measured, status] of GAINS) {
  Deno.test(`four_bit_share: ${gain} ± 0.1 points for 20 % more bits are ${measured} for 10 %: ${status}`, () => {
    const [less, more] = ["twobit_1in8_error", "twobit_1in4_error"];
    const rows = [{ method: less, bits_per_weight: 2.5 }, { method: more, bits_per_weight: 3 }];
    const verdict = judgeFourBitShare(rows, new Map([[less, REFERENCE], [more, better(gain, 0.1)]]));
    assertEquals([verdict.measured, verdict.status], [measured, status]);
    assertStringIncludes(verdict.note, "points for 20.0 % more bits, scaled to 10 %");
  });
}

const outlierRow = (share: number, here: number, long: number): Row => ({
  method: `twobit_${share}`,
  ...{ outlier_share: share, groups: "two_bit", picked_by: "error", more_bits: here, more_bits_4096: long },
});
const gain = (value: number) => ({ value, standardError: 0.1 });

Deno.test("outliers: the largest share that is paid for decides; the note has what long rows could pay for", () => {
  const rows = [outlierRow(0.0005, 2.25, 0.85), outlierRow(0.002, 3.87, 2.55), outlierRow(0.005, 7.3, 5.97)];
  const { measured, status, note } = judgeOutliers(rows, [gain(0.3), gain(0.7), gain(0.9)], 576);
  assertEquals([measured, status], ["0.30 ± 0.10", "not reproduced"]);
  assertStringIncludes(
    note,
    "Outliers of 0.05 % decide: 2.25 % more bits here, where rows have 576 channels and more.",
  );
  assertStringIncludes(note, "With 4096 channels 0.2 % would be paid for (2.55 % more bits), which gain 0.700 ± 0.100");
  assertEquals(judgeOutliers(rows, [gain(0.45), gain(0), gain(0)], 576).status, "partly");
  assertEquals(judgeOutliers(rows, [gain(0.61), gain(0), gain(0)], 576).status, "reproduced");
});

Deno.test("outliers: where no share is paid for here, long rows decide, and then at most partly", () => {
  const rows = [outlierRow(0.0005, 3.1, 0.85), outlierRow(0.002, 4.2, 2.55)];
  const judged = judgeOutliers(rows, [gain(0.3), gain(0.7)], 512);
  assertEquals([judged.measured, judged.status], ["0.70 ± 0.10", "partly"]);
  assertEquals(judgeOutliers(rows, [gain(0.7), gain(0.3)], 512).status, "not reproduced");
  const { measured, status, note } = judgeOutliers([outlierRow(0.005, 7.3, 5.97)], [gain(1)], 512);
  assertEquals([measured, status], [null, "not measured"]);
  assert(note.startsWith("No share qualifies."));
});
