// Evaluating a model: perplexity, next-token accuracy, KL divergence and multiple choice, each with its standard error.
import { chunk } from "@std/collections/chunk";
import { createRandom } from "../../quant/random.ts";
import { type Choices, drawChoices, judgeChoices } from "./choices.ts";
import type { ModelConfig } from "../llama/config.ts";
import { summarizeWindows } from "./score.ts";
import type { Scorer } from "./scorer.ts";
import { clusteredMean, type Estimate, mean } from "../host/statistics.ts";
import { type PreparedTask, prepareTask, scoreTask, type Task, type TaskScore } from "./tasks.ts";
import type { Text } from "../text/text.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { cutWindows, joinTokens, type Windows } from "../text/windows.ts";

export interface EvaluationPlan {
  /** Windows of the text, and their tokens. */
  readonly windows: number;
  /** Tokens of a window, BOS included where it has one. */
  readonly windowTokens: number;
  /** Multiple-choice items; 0 leaves multiple choice out. */
  readonly choices: number;
  readonly seed: number;
}

/** Windows and items, drawn once and used for every model of a comparison. */
export interface EvaluationSet {
  readonly windows: Windows;
  readonly choices: Choices | undefined;
  /** How many evenly spread windows KL divergence is measured on; the reference's predictions of them stay in memory. */
  readonly divergenceWindows: number;
  /** Tasks of multiple-choice questions from files. */
  readonly tasks?: readonly PreparedTask[];
}

const CHOICE_TOKENS = { contextTokens: 32, continuationTokens: 8 } as const;

/** Memory for the reference's predictions: the host's where the CPU scores, else the device's. */
const REFERENCE_BYTES = 2 ** 29;

/** Items that go through the model together. */
const CHOICE_BATCH = 8;

/** Draws the windows and items of a plan. @throws {RangeError} when the text is too short */
export function prepareEvaluation(
  text: Text,
  tokenizer: Tokenizer,
  config: ModelConfig,
  plan: EvaluationPlan,
  tasks: readonly Task[] = [],
): EvaluationSet {
  const tokens = joinTokens(text, tokenizer);
  const length = Math.min(plan.windowTokens, config.context);
  const windows = cutWindows(text, tokens, tokenizer, { length, count: plan.windows });
  if (windows.windows.length < 2) {
    throw new RangeError(`text ${text.name} gives 1 window of ${length} tokens, must give 2 for a standard error`);
  }
  const bytesPerWindow = (length - 1) * config.vocabulary * 4;
  return {
    windows,
    choices: plan.choices === 0 ? undefined : drawChoices(
      tokens,
      tokenizer,
      { items: plan.choices, ...CHOICE_TOKENS },
      createRandom(plan.seed),
    ),
    // Two at least, for a standard error.
    divergenceWindows: Math.max(2, Math.floor(REFERENCE_BYTES / bytesPerWindow)),
    tasks: tasks.map((task) => prepareTask(task, tokenizer, config.context)),
  };
}

export interface Evaluation {
  /** Mean negative log-likelihood of each window, in nats a token. */
  readonly windowLoss: Float64Array;
  /** Share of tokens predicted as the most likely one, of each window. */
  readonly windowTop1: Float64Array;
  /** exp of the mean loss; its standard error follows from the spread of the windows' losses. */
  readonly perplexity: Estimate;
  /** Share of tokens that were predicted as the most likely one. */
  readonly top1: Estimate;
  /** KL(reference || model) in nats a token; absent for the reference itself. */
  readonly divergence?: Estimate;
  /** Share of multiple-choice items answered right. */
  readonly choiceAccuracy?: Estimate;
  /** 1 for each item answered right. */
  readonly choiceHits?: Uint8Array;
  /** Results on tasks, in the order of the set. */
  readonly tasks: readonly TaskScore[];
}

/** The role of a model in a comparison: the reference is evaluated first, the others are compared with it. */
export type Role = "reference" | "compared" | "alone";

export async function evaluateModel(
  scorer: Scorer,
  set: EvaluationSet,
  role: Role,
  onProgress: (share: number) => void = () => {},
): Promise<Evaluation> {
  const { windows } = set.windows;
  const items = set.choices?.items ?? [];
  const batches = chunk(items, CHOICE_BATCH);
  const total = windows.length + batches.length;
  const scores = await scorer.scoreWindows(
    windows.map((tokens, index) => ({
      index,
      tokens,
      reference: role === "alone" || !isSpread(index, set.divergenceWindows, windows.length)
        ? "none"
        : role === "reference"
        ? "keep"
        : "compare",
    })),
    (done) => onProgress(done / total),
  );
  const choiceScores = await scorer.scoreChoices(batches, (done) => onProgress((windows.length + done) / total));
  const tasks: TaskScore[] = [];
  for (const task of set.tasks ?? []) tasks.push(await scoreTask(scorer, task, onProgress));
  const divergences = scores.flatMap(({ divergence }) => divergence ? [divergence] : []);
  const hits = set.choices && judgeChoices(set.choices, choiceScores.flat());
  return {
    windowLoss: Float64Array.from(scores, (score) => mean(score.negativeLogLikelihood)),
    windowTop1: Float64Array.from(scores, (score) => mean(score.top1)),
    ...summarizeWindows(scores),
    ...(divergences.length > 0 && { divergence: clusteredMean(divergences) }),
    ...(hits && { choiceAccuracy: clusteredMean(Array.from(hits, (hit) => [hit])), choiceHits: hits }),
    tasks,
  };
}

/** Whether an index is one of `count` at even distances among `total`, the first included; all of fewer are. */
function isSpread(index: number, count: number, total: number): boolean {
  const taken = Math.min(count, total);
  return Math.floor(index * taken / total) > Math.floor((index - 1) * taken / total);
}
