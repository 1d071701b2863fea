// Comparing quantized models with the unquantized one: the rows that several experiments share.
import { evaluateModel, type Evaluation } from "../model/evaluate/evaluation.ts";
import { LINEAR_KINDS } from "../model/llama/layer.ts";
import { type Estimate, mean, pairedDifference, scaled } from "../model/host/statistics.ts";
import type { TaskScore } from "../model/evaluate/tasks.ts";
import type { Baseline, ExperimentContext } from "./experiment.ts";
import type { Measured } from "./finished_rows.ts";
import type { Method } from "./methods.ts";
import type { Inputs } from "./models/model_place.ts";
import { withoutDirectories } from "./provenance.ts";
import { type Cell, type Column, estimateCells, estimateColumns, type Row } from "./results/result.ts";

/** Columns of every comparison; keys are a contract with programs that read results. */
export const COMPARISON_COLUMNS: readonly Column[] = [
  { key: "method", label: "method", unit: "" },
  { key: "bits_per_weight", label: "bits", unit: "a weight" },
  ...estimateColumns({ key: "perplexity", label: "perplexity", unit: "" }, { label: "± (standard error)" }),
  ...estimateColumns({ key: "perplexity_ratio", label: "perplexity / unquantized", unit: "" }, { label: "± (paired)" }),
  ...estimateColumns({ key: "top1", label: "next token right", unit: "%" }),
  ...estimateColumns({ key: "choice_accuracy", label: "multiple choice right", unit: "%" }),
  ...estimateColumns({ key: "kl", label: "KL to unquantized", unit: "nats a token" }, { unit: "nats" }),
];

/** Columns of tasks, which only some runs have. */
export function taskColumns(tasks: readonly TaskScore[]): Column[] {
  return tasks.flatMap(({ name, normalizedAccuracy }) =>
    ["acc", ...(normalizedAccuracy ? ["acc_norm"] : [])].flatMap((kind) =>
      estimateColumns({ key: `${name}_${kind}`, label: `${name} ${kind}`, unit: "%" })
    )
  );
}

function taskCells(tasks: readonly TaskScore[]): Row {
  const cells = tasks.map(({ name, accuracy, normalizedAccuracy }): Row => ({
    ...percentCells(`${name}_acc`, accuracy),
    ...(normalizedAccuracy && percentCells(`${name}_acc_norm`, normalizedAccuracy)),
  }));
  return Object.assign({}, ...cells);
}

/** Cells of a share in percent; empty where there is none. */
function percentCells(key: string, share: Estimate | undefined): Row {
  return estimateCells(key, share && scaled(share, 100));
}

export function comparisonRow(
  method: string,
  bitsPerWeight: number,
  evaluation: Evaluation,
  reference: Evaluation,
): Row {
  const { perplexity, top1, choiceAccuracy, divergence } = evaluation;
  const gap = pairedDifference(evaluation.windowLoss, reference.windowLoss);
  const ratio = perplexity.value / reference.perplexity.value;
  return {
    method,
    bits_per_weight: bitsPerWeight,
    ...estimateCells("perplexity", perplexity),
    ...estimateCells("perplexity_ratio", { value: ratio, standardError: ratio * gap.standardError }),
    ...percentCells("top1", top1),
    ...percentCells("choice_accuracy", choiceAccuracy),
    ...estimateCells("kl", divergence),
    ...taskCells(evaluation.tasks),
  };
}

export interface MethodCase {
  readonly name: string;
  readonly method: Method;
  readonly inputs: Inputs;
  /** Leaves multiple choice and tasks out: its standard error is too large for the small differences of a sweep. */
  readonly withoutChoices?: boolean;
  readonly onProgress: (share: number, step: string) => void;
}

/**
 * Quantizes the model, evaluates what was stored, and describes it; a row that is finished already, or that an experiment
 * before had by any name, is taken as it is.
 */
export async function compareMethod(
  context: ExperimentContext,
  method: MethodCase,
): Promise<{ row: Row; evaluation: Evaluation }> {
  const { reference } = await context.baseline();
  const { name, inputs, withoutChoices = false } = method;
  const rows = await context.finishedRows();
  const describe = (withoutChoices: boolean) =>
    JSON.stringify({
      inputs,
      withoutChoices,
      ...Object.fromEntries(LINEAR_KINDS.map((kind) => [kind, method.method(kind)])),
    });
  const quantizers = describe(withoutChoices);
  const known = rows.find(name, quantizers);
  const whole = context.measured.get(describe(false));
  const shared = context.measured.get(quantizers) ?? (withoutChoices && whole ? leaveChoicesOut(whole) : undefined);
  const measured = known ?? shared ?? await measureMethod(context, method);
  context.measured.set(quantizers, measured);
  if (!known) await rows.add(name, quantizers, measured);
  const { bitsPerWeight, evaluation } = measured;
  return { row: comparisonRow(name, bitsPerWeight, evaluation, reference), evaluation };
}

/** What would have been measured without multiple choice and tasks. */
function leaveChoicesOut({ bitsPerWeight, evaluation }: Measured): Measured {
  const { choiceAccuracy: _, choiceHits: __, ...others } = evaluation;
  return { bitsPerWeight, evaluation: { ...others, tasks: [] } };
}

async function measureMethod(
  context: ExperimentContext,
  { name, method, inputs, withoutChoices, onProgress }: MethodCase,
): Promise<Measured> {
  const { set, calibration } = await context.baseline();
  const place = await context.place();
  const bitsPerWeight = await place.quantize({
    quantizerOf: method,
    inputs,
    windows: inputs === "random" ? await context.randomWindows() : calibration.windows,
    onProgress: (share, step) => onProgress(share / 2, `${name}: quantizing ${step}`),
  });
  const evaluation = await evaluateModel(
    place.scorer,
    withoutChoices ? { ...set, choices: undefined, tasks: [] } : set,
    "compared",
    (share) => onProgress((1 + share) / 2, `${name}: evaluating`),
  );
  return { bitsPerWeight, evaluation };
}

/** What each model scored on each window: any average, error and paired difference follows from these. */
export function windowSamples(evaluations: ReadonlyMap<string, Evaluation>): Record<string, number[]> {
  return Object.fromEntries(
    Array.from(evaluations, ([method, { windowLoss, windowTop1 }]) => [
      [`${method}: nats a token, by window`, Array.from(windowLoss)],
      [`${method}: share of next tokens right, by window`, Array.from(windowTop1)],
    ]).flat(),
  );
}

/** Points of next-token accuracy by which `a` is better than `b`, with the standard error of the windows' differences. */
export function accuracyGain(a: Evaluation, b: Evaluation): Estimate {
  return scaled(pairedDifference(a.windowTop1, b.windowTop1), 100);
}

/**
 * Points of accuracy by which `a` is better than `b` in the mean over tasks (the harness's acc), with the standard
 * error of the questions' paired differences.
 */
export function taskGain(a: Evaluation, b: Evaluation): Estimate {
  const differences = a.tasks.map(({ hits }, i) => pairedDifference(hits, b.tasks[i].hits));
  const squares = differences.reduce((sum, { standardError }) => sum + standardError ** 2, 0);
  return {
    value: 100 * mean(differences.map(({ value }) => value)),
    standardError: (100 * Math.sqrt(squares)) / differences.length,
  };
}

export function comparisonSettings(
  { set, reference, calibration, scoredOn, quantizedOn }: Baseline,
): Record<string, Cell> {
  const { windows, choices, divergenceWindows } = set;
  const length = windows.windows[0].length;
  return {
    ...(quantizedOn && { "quantized on": `GPU (${quantizedOn}), f32` }),
    "scored on": scoredOn,
    "evaluation text": windows.text,
    "tokens of the text": windows.textTokens,
    "windows": windows.plain
      ? `${windows.windows.length} of ${length} consecutive tokens of the joined text, all but the first predicted, no ` +
        "overlap (GPTQ's protocol)"
      : `${windows.windows.length} of ${length} tokens: BOS and ${length - 1} consecutive ones, all predicted, ` +
        `no overlap, spread evenly over the text (BOS before each document)`,
    "tokens predicted": windows.windows.length * (length - 1),
    "standard errors": "from the spread between windows; of ratios, from the windows' paired differences",
    "windows for KL": divergenceWindows < windows.windows.length
      ? `${divergenceWindows}, spread evenly`
      : windows.windows.length,
    "multiple choice": choices
      ? `${choices.items.length} items of the same text: ${choices.items[0].context.length} tokens of context, true ` +
        `continuation of ${choices.items[0].continuations[0].length} tokens against three from elsewhere, ` +
        `log-likelihood a byte; chance is 25 %`
      : "left out",
    ...(reference.tasks.length > 0 && {
      "tasks": reference.tasks.map(({ name, questions }) => `${name} (${questions} questions)`).join(", ") +
        ", scored as lm-evaluation-harness does without examples in front",
    }),
    "calibration": `${calibration.windows.length} windows of ${calibration.windows[0].length} tokens of text ` +
      `"${withoutDirectories(calibration.text)}", for methods with error feedback`,
  };
}

export function sweepSettings(baseline: Baseline): Record<string, Cell> {
  return {
    ...comparisonSettings(baseline),
    "multiple choice": "left out: its standard error is too large for the differences of this sweep",
  };
}
