import { judgeCalibration } from "../../experiments/calibration.ts";
import type { Row } from "../../experiments/results/result.ts";
import { assertEquals, assertStringIncludes } from "../assert.ts";

const calibrationRow = (text: string, difference: number, error: number): Row => ({
  text,
  ...{ evaluated: "mix", difference, difference_error: error },
});

Deno.test("calibration: the largest difference is shown, the one with the most standard errors decides", () => {
  // 5 errors and 2 errors below 0: the first gains less, the second says less.
  const { measured, status, note } = judgeCalibration([
    calibrationRow("a", -0.01, 0.002),
    calibrationRow("b", -0.02, 0.01),
  ]);
  assertEquals([measured, status], ["-1.00 ± 0.20 (calibrated on a, evaluated on mix)", "reproduced"]);
  assertStringIncludes(
    note,
    "Of all 2 cases the one with the most standard errors decides: -2.00 ± 1.00 (calibrated on b",
  );
});

const CALIBRATIONS: readonly (readonly [differences: readonly number[], status: string])[] = [
  [[-0.03, -0.011], "reproduced"],
  [[-0.03, -0.009], "partly"],
  [[-0.03, 0.009], "partly"],
  [[-0.03, 0.011], "not reproduced"],
];

for (const [differences, status] of CALIBRATIONS) {
  Deno.test(`calibration: differences of ${differences.join(" and ")}, each ± 0.01, are ${status}`, () => {
    assertEquals(judgeCalibration(differences.map((each) => calibrationRow("a", each, 0.01))).status, status);
  });
}
