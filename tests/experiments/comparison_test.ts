import { compareMethod } from "../../experiments/comparison.ts";
import type { ExperimentContext } from "../../experiments/experiment.ts";
import { UNKEPT_ROWS } from "../../experiments/finished_rows.ts";
import { rtn, twobitFeedback, twobitSearch } from "../../experiments/methods.ts";
import type { PlacePlan } from "../../experiments/models/model_place.ts";
import { summarizeWindows } from "../../model/evaluate/score.ts";
import { FEEDBACK, SETTINGS } from "../../quant/recipe.ts";
import { assertEquals } from "../assert.ts";

/** A context whose model is never quantized; the loss of its windows is how often that was asked for. */
function countingContext() {
  let quantized = 0;
  const scores = (loss: number) =>
    [0, 1].map((window) => ({
      negativeLogLikelihood: Float32Array.of(loss, loss + window),
      top1: Uint8Array.of(1, 0),
      divergence: Float32Array.of(0, 0.5),
    }));
  const windows = [0, 1].map(() => new Uint32Array(3));
  const random = [new Uint32Array(3)];
  const given: PlacePlan["windows"][] = [];
  const reference = {
    ...summarizeWindows(scores(0)),
    windowLoss: Float64Array.of(0, 0.5),
    windowTop1: Float64Array.of(0.5, 0.5),
    tasks: [],
  };
  const place = {
    quantize(plan: PlacePlan) {
      given.push(plan.windows);
      return Promise.resolve(2.5 + ++quantized);
    },
    scorer: { scoreWindows: () => Promise.resolve(scores(quantized)), scoreChoices: () => Promise.resolve([]) },
  };
  const context = {
    measured: new Map(),
    finishedRows: () => Promise.resolve(UNKEPT_ROWS),
    place: () => Promise.resolve(place),
    randomWindows: () => Promise.resolve(random),
    baseline: () =>
      Promise.resolve({
        set: { windows: { windows }, choices: undefined, divergenceWindows: 2 },
        reference,
        calibration: { windows },
      }),
  };
  return { context: context as unknown as ExperimentContext, quantized: () => quantized, given, windows, random };
}

Deno.test("compareMethod: random tokens calibrate where they are asked for, the text elsewhere", async () => {
  const { context, given, windows, random } = countingContext();
  for (const inputs of ["unquantized", "random"] as const) {
    await compareMethod(context, { name: inputs, method: twobitSearch, inputs, onProgress() {} });
  }
  assertEquals(given.map((each) => each === windows ? "text" : each === random ? "random" : "other"), [
    "text",
    "random",
  ]);
});

Deno.test("compareMethod: a row that several experiments have is measured once, whatever it is called", async () => {
  const { context, quantized } = countingContext();
  const rowOf = async (name: string, method: typeof twobitFeedback, more: object = {}) => {
    const found = await compareMethod(context, { name, method, inputs: "unquantized", onProgress() {}, ...more });
    return [found.row.method, found.row.bits_per_weight, quantized()];
  };
  const sweep = () => ({
    kind: "twobit" as const,
    settings: { ...SETTINGS, refineEvery: 8 as const },
    feedback: FEEDBACK,
  });
  assertEquals(await rowOf("twobit_feedback", twobitFeedback), ["twobit_feedback", 3.5, 1]);
  assertEquals(await rowOf("twobit_1in8_error", sweep, { withoutChoices: true }), ["twobit_1in8_error", 3.5, 1]);
  assertEquals(await rowOf("twobit_no_outliers", sweep, { withoutChoices: true }), ["twobit_no_outliers", 3.5, 1]);
  // Other quantizers and inputs are measured, and multiple choice where it was left out before.
  assertEquals(await rowOf("rtn2_g16", rtn(2, 16)), ["rtn2_g16", 4.5, 2]);
  assertEquals(await rowOf("corrected", sweep, { inputs: "corrected" }), ["corrected", 5.5, 3]);
  assertEquals(await rowOf("search", twobitSearch, { withoutChoices: true }), ["search", 6.5, 4]);
  assertEquals(await rowOf("search", twobitSearch), ["search", 7.5, 5]);
});
