// A question of this suite, no claim of the paper: what each calibration text costs, and whether corrected targets are
// ever worse than error feedback alone.
import { join } from "@std/path";
import { evaluateModel } from "../model/evaluate/evaluation.ts";
import { exponentialOf, mean, pairedDifference } from "../model/host/statistics.ts";
import { type DividedSizes, type DividedText, divideTexts } from "../model/quantize/divided_texts.ts";
import { SELF } from "../model/text/calibration_names.ts";
import { CALIBRATION_SIZES } from "../quant/recipe.ts";
import { compareMethod, windowSamples } from "./comparison.ts";
import type { Baseline, Experiment, ExperimentContext } from "./experiment.ts";
import { twobit, twobitFeedback } from "./methods.ts";
import { makeCleared } from "./models/cleared_directory.ts";
import { type FileCase, findFiles, openGiven } from "./packed/packed_cases.ts";
import {
  type Cell,
  type Column,
  estimateCells,
  estimateColumns,
  estimateOf,
  type Row,
  type Verdict,
} from "./results/result.ts";

/** As many windows calibrate as `quantize` takes by default on the CPU, and on a GPU of larger models. */
const ON_GPU: DividedSizes = { calibrating: CALIBRATION_SIZES.gpu.windows, evaluated: 512, others: 64 };
const ON_CPU: DividedSizes = { calibrating: CALIBRATION_SIZES.cpu.windows, evaluated: 12, others: 12 };
const QUICK: DividedSizes = { calibrating: 4, evaluated: 4, others: 2 };

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
    const given = await openGiven(context);
    await using made = await makeCleared(directory, "first_quarter");
    const { texts, whyNotSelf } = await divideTexts(checkpoint, {
      ...(context.quick ? QUICK : isRealGpu ? ON_GPU : ON_CPU),
      ...{ textName, windowTokens: CALIBRATION_SIZES.gpu.windowTokens, seed, sourceSha256: sha256, gpu },
      // A software adapter would write longer than all else takes.
      writes: isRealGpu,
      // Beside what the default text has of it.
      path: join(directory, "calibration_texts"),
      onProgress: (step) => context.progress(0, step),
    });
    if (whyNotSelf !== undefined) context.progress(0, `${SELF} is ${whyNotSelf}`);
    const { files, leftOut } = await findFiles(context, texts[0], made.path, given);
    const { evaluations, bits } = await measureTexts(context, texts, files);
    const lossOn = (i: number) => {
      const start = texts.slice(0, i).reduce((sum, { evaluated }) => sum + evaluated.length, 0);
      return (name: string) => evaluations.get(name)!.windowLoss.subarray(start, start + texts[i].evaluated.length);
    };
    const rows = texts.flatMap(({ name: text }) =>
      texts.map(({ name: evaluated }, i): Row => {
        const lossOf = lossOn(i);
        return {
          ...{ text, evaluated, bits_per_weight: bits.get(`${text} corrected`)! },
          ...describe(lossOf("unquantized"), lossOf(`${text} feedback`), lossOf(`${text} corrected`)),
        };
      })
    );
    const fileRows = files.map(({ name }): Row => ({
      ...{ text: name, evaluated: texts[0].name, bits_per_weight: bits.get(name)! },
      unquantized_perplexity: Math.exp(mean(lossOn(0)("unquantized"))),
      ...compare("file", lossOn(0)("unquantized"), lossOn(0)(name)),
    }));
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
        ...Object.fromEntries(files.map(({ name, said }) => [name, said])),
        ...leftOut,
        "method":
          "one refined group in 8, no outliers, untuned. feedback: Hessians of the unquantized model; corrected: " +
          "and targets corrected for what earlier layers' quantization changed",
        "standard errors": "from the windows' paired differences",
      },
      columns: files.length > 0 ? [...COLUMNS, ...comparedColumns("file", "packed file")] : COLUMNS,
      rows: [...rows, ...fileRows],
      samples: windowSamples(evaluations),
      verdict: judgeCalibration(rows),
    };
  },
};

/**
 * Evaluates the model on all texts at once, one after the other: unquantized, and calibrated on each by both methods;
 * files on the first alone.
 */
async function measureTexts(context: ExperimentContext, texts: readonly DividedText[], files: readonly FileCase[]) {
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
  const onOwn = texts[0].evaluated.length;
  const own = {
    set: { ...set, windows: { ...windows, windows: texts[0].evaluated } },
    reference: { ...reference, windowLoss: reference.windowLoss.subarray(0, onOwn) },
  };
  const cases = [
    ...texts.flatMap(({ name: text, calibrating }) =>
      METHODS.map(({ step, ...method }) => ({
        ...{ ...method, name: `${text} ${step}`, set, reference },
        calibration: { text, windows: calibrating },
      }))
    ),
    ...files.map((file) => ({ ...file, ...own, method: twobit, calibration: all })),
  ];
  for (const [i, { name, method, inputs, ...measured }] of cases.entries()) {
    const baseline: Baseline = { ...measured, state, scoredOn: scorer.device };
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
  return {
    unquantized_perplexity: Math.exp(mean(unquantized)),
    ...compare("feedback", unquantized, feedback),
    ...compare("corrected", unquantized, corrected),
    ...estimateCells("difference", pairedDifference(corrected, feedback)),
  };
}

/** Cells of {@linkcode comparedColumns}. */
function compare(key: string, unquantized: Float64Array, loss: Float64Array): Row {
  const { standardError } = pairedDifference(loss, unquantized);
  const ratio = exponentialOf({ value: mean(loss) - mean(unquantized), standardError });
  return { [`${key}_perplexity`]: Math.exp(mean(loss)), ...estimateCells(`${key}_ratio`, ratio) };
}

function comparedColumns(key: string, label: string): Column[] {
  return [
    { key: `${key}_perplexity`, label: `${label}: perplexity`, unit: "" },
    ...estimateColumns({ key: `${key}_ratio`, label: `${label} / unquantized`, unit: "" }, { label: "± (paired)" }),
  ];
}

const COLUMNS: readonly Column[] = [
  { key: "text", label: "calibrated on", unit: "" },
  { key: "evaluated", label: "evaluated on", unit: "" },
  { key: "bits_per_weight", label: "bits", unit: "a weight" },
  { key: "unquantized_perplexity", label: "unquantized perplexity", unit: "" },
  ...["feedback", "corrected"].flatMap((step) => comparedColumns(step, step)),
  ...estimateColumns(
    { key: "difference", label: "corrected - feedback", unit: "nats a token" },
    { label: "± (paired)", unit: "nats" },
  ),
];

/**
 * Shows the case in which correction gains the least; the one that is worse by the most standard errors decides. Above
 * two the claim fails, between one and two it may by chance: of six cases that don't differ one lies above one.
 */
export function judgeCalibration(rows: readonly Row[]): Verdict {
  const compared = rows.filter(({ difference }) => typeof difference === "number");
  const cases = compared.map((row) => ({
    name: `calibrated on ${row.text}, evaluated on ${row.evaluated}`,
    ...estimateOf(row, "difference"),
  }));
  const worst = cases.reduce((a, b) => a.value >= b.value ? a : b);
  const decisive = cases.reduce((a, b) => a.value / a.standardError >= b.value / b.standardError ? a : b);
  const describe = ({ name, value, standardError }: typeof worst) =>
    `${(100 * value).toFixed(2)} ± ${(100 * standardError).toFixed(2)} (${name})`;
  const { value, standardError } = decisive;
  return {
    paper: "nothing",
    measured: describe(worst),
    unit: "% (log) by which corrected targets' perplexity is above feedback's, at worst",
    status: value <= standardError ? "reproduced" : value <= 2 * standardError ? "partly" : "not reproduced",
    note: `No claim of the paper. Of all ${cases.length} cases the one with the most standard errors decides: ` +
      `${describe(decisive)}. Reproduced means: worse by no more than one standard error. Partly means: by no more ` +
      `than two, as one of six cases that don't differ is by chance: some ${(cases.length / 6).toFixed(1)} of ` +
      `${cases.length}.`,
  };
}
