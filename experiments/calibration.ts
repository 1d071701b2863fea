// A question of this suite, no claim of the paper: what each calibration text costs, and whether corrected targets are ever
// worse than error feedback alone.
import { join } from "@std/path";
import { evaluateModel } from "../model/evaluate/evaluation.ts";
import { mean, pairedDifference } from "../model/host/statistics.ts";
import { type DividedSizes, type DividedText, divideTexts } from "../model/quantize/divided_texts.ts";
import { SELF } from "../model/text/calibration_names.ts";
import { CALIBRATION_SIZES } from "../quant/recipe.ts";
import { compareMethod, windowSamples } from "./comparison.ts";
import type { Baseline, Experiment, ExperimentContext } from "./experiment.ts";
import { twobit, twobitFeedback } from "./methods.ts";
import { statusOf } from "./results/judge.ts";
import type { Cell, Column, Row, Verdict } from "./results/result.ts";

/** As many windows calibrate as `quantize` takes by default on the CPU, and on a GPU of larger models. */
const ON_GPU: DividedSizes = { calibrating: CALIBRATION_SIZES.gpu.windows, evaluated: 512, others: 64 };
const ON_CPU: DividedSizes = { calibrating: CALIBRATION_SIZES.cpu.windows, evaluated: 12, others: 12 };
const QUICK: DividedSizes = { calibrating: 4, evaluated: 4, others: 2 };
const WINDOW_TOKENS = 512;

const METHODS = [
  { step: "feedback", method: twobitFeedback, inputs: "unquantized" },
  { step: "corrected", method: twobit, inputs: "corrected" },
] as const;

export const calibration: Experiment = {
  id: "calibration",
  title: "What each calibration text costs",
  claim:
    "Ours, no claim of the paper: whatever text calibrates, corrected targets are never worse than error feedback " +
    "alone by more than one standard error.",
  differs: "The paper doesn't say what it calibrates on.",
  needsGpu: false,
  needsModel: true,
  isOurs: true,
  takesWholeRun: true,
  async run(context) {
    const { scorer, gpu, isRealGpu } = await context.place();
    const { checkpoint, sha256 } = await context.opened();
    const { directory, textName, seed } = context;
    await Deno.mkdir(directory, { recursive: true });
    const { texts, whyNotSelf } = await divideTexts(checkpoint, {
      ...(context.quick ? QUICK : isRealGpu ? ON_GPU : ON_CPU),
      ...{ textName, windowTokens: WINDOW_TOKENS, seed, sourceSha256: sha256, gpu },
      // A software adapter would write longer than all else takes.
      writes: isRealGpu,
      // Beside what the default text has of it.
      path: join(directory, "calibration_texts"),
      onProgress: (step) => context.progress(0, step),
    });
    if (whyNotSelf !== undefined) context.progress(0, `${SELF} is ${whyNotSelf}`);
    const { evaluations, bits } = await measureTexts(context, texts);
    const rows = texts.flatMap(({ name: text }) =>
      texts.map(({ name: evaluated }, i): Row => {
        const start = texts.slice(0, i).reduce((sum, { evaluated }) => sum + evaluated.length, 0);
        const lossOf = (name: string) =>
          evaluations.get(name)!.windowLoss.subarray(start, start + texts[i].evaluated.length);
        return {
          ...{ text, evaluated, bits_per_weight: bits.get(`${text} corrected`)! },
          ...describe(lossOf("unquantized"), lossOf(`${text} feedback`), lossOf(`${text} corrected`)),
        };
      })
    );
    return {
      settings: {
        ...(gpu && { "quantized on": `GPU (${gpu.adapterName}), f32` }),
        "scored on": scorer.device,
        ...Object.fromEntries(texts.map(({ name, parts, calibrating, evaluated }) => [
          name,
          `${parts}: ${calibrating.length} windows of ${calibrating[0].length} tokens calibrate, ` +
          `${evaluated.length} are evaluated`,
        ])),
        ...(whyNotSelf !== undefined && { [SELF]: whyNotSelf }),
        "method":
          "one refined group in 8, no outliers, untuned. feedback: Hessians of the unquantized model; corrected: " +
          "and targets corrected for what earlier layers' quantization changed",
        "standard errors": "from the windows' paired differences",
      },
      columns: COLUMNS,
      rows,
      samples: windowSamples(evaluations),
      verdict: judgeCalibration(rows),
    };
  },
};

/** Evaluates the model on all texts at once, one after the other: unquantized, and calibrated on each by both methods. */
async function measureTexts(context: ExperimentContext, texts: readonly DividedText[]) {
  const { scorer, scoreUnquantized } = await context.place();
  const all = { text: texts.map(({ name }) => name).join(), windows: texts.flatMap(({ calibrating }) => calibrating) };
  const windows = { text: all.text, windows: texts.flatMap(({ evaluated }) => evaluated), textTokens: 0 };
  const set = { windows, choices: undefined, divergenceWindows: 0 };
  const state = await context.describeState(set, all);
  await context.finishedRows(state);
  await scoreUnquantized();
  const reference = await evaluateModel(scorer, set, "alone");
  const evaluations = new Map([["unquantized", reference]]);
  const bits = new Map<string, Cell>();
  const cases = texts.flatMap((text) => METHODS.map((method) => ({ ...text, ...method })));
  for (const [i, { name: text, calibrating, step, method, inputs }] of cases.entries()) {
    const name = `${text} ${step}`;
    const calibration = { text, windows: calibrating };
    const baseline: Baseline = { set, reference, calibration, state, scoredOn: scorer.device };
    const onProgress = (share: number, step: string) => context.progress((i + share) / cases.length, step);
    const { evaluation, row } = await compareMethod(
      // What was measured before was calibrated on another text.
      { ...context, measured: new Map(), baseline: () => Promise.resolve(baseline) },
      { name, method, inputs, withoutChoices: true, onProgress },
    );
    evaluations.set(name, evaluation);
    bits.set(name, row.bits_per_weight);
  }
  return { evaluations, bits };
}

/** What a text costs on an evaluation, by both methods. */
function describe(unquantized: Float64Array, feedback: Float64Array, corrected: Float64Array): Row {
  const against = (key: string, loss: Float64Array): Row => {
    const ratio = Math.exp(mean(loss) - mean(unquantized));
    return {
      [`${key}_perplexity`]: Math.exp(mean(loss)),
      [`${key}_ratio`]: ratio,
      [`${key}_ratio_error`]: ratio * pairedDifference(loss, unquantized).standardError,
    };
  };
  const { value, standardError } = pairedDifference(corrected, feedback);
  return {
    unquantized_perplexity: Math.exp(mean(unquantized)),
    ...against("feedback", feedback),
    ...against("corrected", corrected),
    difference: value,
    difference_error: standardError,
  };
}

const COLUMNS: readonly Column[] = [
  { key: "text", label: "calibrated on", unit: "" },
  { key: "evaluated", label: "evaluated on", unit: "" },
  { key: "bits_per_weight", label: "bits", unit: "a weight" },
  { key: "unquantized_perplexity", label: "unquantized perplexity", unit: "" },
  ...["feedback", "corrected"].flatMap((step) => [
    { key: `${step}_perplexity`, label: `${step}: perplexity`, unit: "" },
    { key: `${step}_ratio`, label: `${step} / unquantized`, unit: "" },
    { key: `${step}_ratio_error`, label: "± (paired)", unit: "" },
  ]),
  { key: "difference", label: "corrected - feedback", unit: "nats a token" },
  { key: "difference_error", label: "± (paired)", unit: "nats" },
];

/** Shows the case in which correction gains the least; the one with the most standard errors decides. */
export function judgeCalibration(rows: readonly Row[]): Verdict {
  const cases = rows.map(({ text, evaluated, difference: value, difference_error: standardError }) => ({
    name: `calibrated on ${text}, evaluated on ${evaluated}`,
    value: Number(value),
    standardError: Number(standardError),
  }));
  const worst = cases.reduce((a, b) => a.value >= b.value ? a : b);
  const decisive = cases.reduce((a, b) => a.value / a.standardError >= b.value / b.standardError ? a : b);
  const describe = ({ name, value, standardError }: typeof worst) =>
    `${(100 * value).toFixed(2)} ± ${(100 * standardError).toFixed(2)} (${name})`;
  return {
    paper: "nothing",
    measured: describe(worst),
    unit: "% (log) by which corrected targets' perplexity is above feedback's, at worst",
    status: statusOf(-decisive.value, decisive.standardError),
    note: `No claim of the paper. Of all ${cases.length} cases the one with the most standard errors decides: ` +
      `${describe(decisive)}. Reproduced means: more than one standard error below 0. Partly means: within one of 0.`,
  };
}
