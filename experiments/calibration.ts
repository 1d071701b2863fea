/**
 * A question of this suite, no claim of the paper: what each calibration text costs, and whether corrected targets are ever
 * worse than error feedback alone.
 *
 * @module
 */
import { basename, join } from "@std/path";
import { evaluateModel } from "../model/evaluate/evaluation.ts";
import { mean, pairedDifference } from "../model/host/statistics.ts";
import { readCalibration } from "../model/quantize/calibration_text.ts";
import { SELF } from "../model/text/calibration_names.ts";
import { loadText } from "../model/text/text.ts";
import { cutWindows, joinTokens, sampleWindows } from "../model/text/windows.ts";
import { compareMethod, windowSamples } from "./comparison.ts";
import type { Baseline, Experiment, ExperimentContext } from "./experiment.ts";
import { twobit, twobitFeedback } from "./methods.ts";
import type { Cell, Column, Row, Verdict } from "./results/result.ts";

/** Numbers of windows. */
interface Sizes {
  /** Calibrated on, of each text. */
  readonly calibrating: number;
  /** Evaluated, of the run's text and of each other. */
  readonly evaluated: number;
  readonly others: number;
}

const ON_GPU: Sizes = { calibrating: 128, evaluated: 512, others: 64 };
const ON_CPU: Sizes = { calibrating: 16, evaluated: 12, others: 6 };
const QUICK: Sizes = { calibrating: 4, evaluated: 4, others: 2 };
const WINDOW_TOKENS = 512;

/** Shares of the run's text and of each source of the mix that calibrate; what is left is evaluated. */
const RUN_SHARE = 1 / 4;
const MIX_SHARE = 7 / 8;

/** A text of which one part calibrates and another is evaluated. */
interface DividedText {
  readonly name: string;
  readonly calibrating: readonly Uint32Array<ArrayBuffer>[];
  readonly evaluated: readonly Uint32Array<ArrayBuffer>[];
}

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
  takesWholeRun: true,
  async run(context) {
    const { scorer, scoreUnquantized, gpu, isRealGpu } = await context.place();
    const texts = await divideTexts(context, context.quick ? QUICK : isRealGpu ? ON_GPU : ON_CPU);
    const windows = texts.flatMap(({ evaluated }) => evaluated);
    const named = { text: texts.map(({ name }) => name).join(), textTokens: 0 };
    const set = { windows: { ...named, windows }, choices: undefined, divergenceWindows: 0 };
    const all = { text: named.text, windows: texts.flatMap(({ calibrating }) => calibrating) };
    const state = await context.describeState(set, all);
    await context.finishedRows(state);
    await scoreUnquantized();
    const reference = await evaluateModel(scorer, set, "alone");
    const evaluations = new Map([["unquantized", reference]]);
    const bits = new Map<string, Cell>();
    const cases = texts.flatMap((text) => METHODS.map((method) => ({ ...text, ...method })));
    for (const [i, { name: text, calibrating, step, ...method }] of cases.entries()) {
      const name = `${text} ${step}`;
      const calibration = { text, windows: calibrating };
      const baseline: Baseline = { set, reference, calibration, state, scoredOn: scorer.device };
      const { evaluation, row } = await compareMethod(
        // What was measured before was calibrated on another text.
        { ...context, measured: new Map(), baseline: () => Promise.resolve(baseline) },
        {
          ...{ ...method, name, withoutChoices: true },
          onProgress: (share, step) => context.progress((i + share) / cases.length, step),
        },
      );
      evaluations.set(name, evaluation);
      bits.set(name, row.bits_per_weight);
    }
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
        ...describeTexts(texts),
        "method":
          "one refined group in 8, no outliers, untuned. feedback: Hessians of the unquantized model; corrected: " +
          "and targets corrected for what earlier layers' quantization changed",
        "standard errors": "from the windows' paired differences",
      },
      columns: COLUMNS,
      rows,
      samples: windowSamples(evaluations),
      verdict: judge(rows),
    };
  },
};

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

/** All texts, each with as many windows to calibrate on. */
async function divideTexts(context: ExperimentContext, sizes: Sizes): Promise<DividedText[]> {
  const { checkpoint, sha256 } = await context.opened();
  const { tokenizer, config } = checkpoint;
  const { textName } = context;
  const length = Math.min(WINDOW_TOKENS, config.context);
  const texts: DividedText[] = [];
  let count = sizes.calibrating;
  const speeches = await loadText("sotu");
  if (textName !== speeches.name) {
    const text = await loadText(textName);
    const tokens = joinTokens(text, tokenizer);
    const [first, rest] = [tokens.subarray(0, RUN_SHARE * tokens.length), tokens.subarray(RUN_SHARE * tokens.length)];
    const { windows: calibrating } = cutWindows(text, first, tokenizer, { length, count });
    const { windows: evaluated } = cutWindows(text, rest, tokenizer, { length, count: sizes.evaluated });
    texts.push({ name: basename(textName), calibrating, evaluated });
    count = calibrating.length;
  }
  const others = texts.length > 0 ? sizes.others : sizes.evaluated;
  texts.push({
    name: "speeches",
    calibrating: sampleWindows(await loadText("calibration"), tokenizer, { length, count }).windows,
    evaluated: cutWindows(speeches, joinTokens(speeches, tokenizer), tokenizer, { length, count: others }).windows,
  });
  const mix = await loadText("mix");
  const partOfMix = (from: number, to: number, count: number) => {
    const documents = mix.documents.map((source) => source.slice(from * source.length, to * source.length));
    return sampleWindows({ ...mix, documents }, tokenizer, { length, count }).windows;
  };
  texts.push({
    name: mix.name,
    calibrating: partOfMix(0, MIX_SHARE, count),
    evaluated: partOfMix(MIX_SHARE, 1, sizes.others),
  });
  await Deno.mkdir(context.directory, { recursive: true });
  const written = await readCalibration(checkpoint, {
    calibration: SELF,
    windows: count + sizes.others,
    windowTokens: length,
    seed: context.seed,
    // Kept beside what the default text has of it.
    path: join(context.directory, "calibration_texts"),
    sourceSha256: sha256,
    gpu: (await context.place()).gpu,
    onProgress: (step) => context.progress(0, step),
    signal: undefined,
  }) as Uint32Array<ArrayBuffer>[];
  texts.push({ name: SELF, calibrating: written.slice(0, count), evaluated: written.slice(count) });
  return texts;
}

/** Of each text, what calibrates and what is evaluated. */
function describeTexts(texts: readonly DividedText[]): Record<string, Cell> {
  const parts: Record<string, string> = {
    speeches: "speeches and chapters of Moby Dick that are held in; speeches that are held out",
    mix: "the first 7 eighths of each source; the last eighth",
    self: "what the model writes at temperature 1; more of it",
  };
  return Object.fromEntries(texts.map(({ name, calibrating, evaluated }) => [
    name,
    `${parts[name] ?? "the first quarter; the rest"}: ${calibrating.length} windows of ${
      calibrating[0].length
    } tokens ` +
    `calibrate, ${evaluated.length} are evaluated`,
  ]));
}

/** The case in which correction gains the least, by its standard error. */
function judge(rows: readonly Row[]): Verdict {
  const cases = rows.map(({ text, evaluated, difference, difference_error: error }) => ({
    name: `calibrated on ${text}, evaluated on ${evaluated}`,
    difference: Number(difference),
    error: Number(error),
  }));
  const worst = cases.reduce((a, b) => a.difference / a.error >= b.difference / b.error ? a : b);
  const percent = (value: number) => (100 * value).toFixed(2);
  return {
    paper: "nothing",
    measured: `${percent(worst.difference)} ± ${percent(worst.error)} (${worst.name})`,
    unit: "% (log) by which corrected targets' perplexity is above feedback's, at worst",
    status: worst.difference <= worst.error ? "reproduced" : "not reproduced",
    note:
      `No claim of the paper; reproduced means that it holds: of all ${cases.length} cases none is worse by more than ` +
      "one standard error. The case shown is the one with the most standard errors.",
  };
}
