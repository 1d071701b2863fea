// Scoring a model on files of multiple-choice questions as lm-evaluation-harness 0.4 does.
import { chunk } from "@std/collections/chunk";
import { stripEnd } from "../host/python_text.ts";
import { type ChoiceTaskName, isNormalized, type Question, readQuestion, type Request } from "./questions.ts";
import type { ChoiceItem } from "./score.ts";
import { clusteredMean, type Estimate } from "../host/statistics.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Scorer } from "./scorer.ts";

export interface Task {
  readonly name: ChoiceTaskName;
  readonly questions: readonly Question[];
}

export interface TaskFile {
  readonly name: ChoiceTaskName;
  readonly path: string;
}

/** A task whose questions have been tokenized. */
export interface PreparedTask extends Task {
  /** Items of each question: one where all choices follow the same context, else one each. */
  readonly items: readonly (readonly ChoiceItem[])[];
}

export interface TaskScore {
  readonly name: ChoiceTaskName;
  readonly questions: number;
  /** Share of questions whose right choice has the highest log-likelihood (the harness's acc). */
  readonly accuracy: Estimate;
  /** The same with log-likelihoods divided by the choices' characters (acc_norm); absent for winogrande. */
  readonly normalizedAccuracy?: Estimate;
  /** 1 for each question answered right by the highest log-likelihood. */
  readonly hits: readonly number[];
  /** Log-likelihood of every choice of every question, in nats. */
  readonly scores: readonly (readonly number[])[];
}

/** Largest task file that is read; the largest of the four data sets' files is 50 MB. */
const MAX_FILE_BYTES = 2 ** 28;

/** Questions that go through the model together. */
const BATCH = 4;

/** Reads a file of questions, one JSON object a line. @throws {SyntaxError} naming file, line and field */
export async function readTask({ name, path }: TaskFile): Promise<Task> {
  const { size } = await Deno.stat(path);
  if (size > MAX_FILE_BYTES) throw new SyntaxError(`${path} has ${size} bytes, must have at most ${MAX_FILE_BYTES}`);
  const questions = (await Deno.readTextFile(path)).split("\n").flatMap((line, i) =>
    line.trim() === "" ? [] : [readQuestion(name, `${path}, line ${i + 1}`, line)]
  );
  if (questions.length < 2) throw new SyntaxError(`${path} has ${questions.length} questions, must have at least 2`);
  return { name, questions };
}

/** Tokenizes a task. @throws {RangeError} when a choice is longer than the model's context */
export function prepareTask(task: Task, tokenizer: Tokenizer, context: number): PreparedTask {
  return { ...task, items: task.questions.map(({ requests }) => toItems(requests, tokenizer, context)) };
}

export async function scoreTask(
  scorer: Scorer,
  { name, questions, items }: PreparedTask,
  onProgress: (share: number) => void = () => {},
): Promise<TaskScore> {
  const batches = chunk(items, BATCH).map((batch) => batch.flat());
  const found = await scorer.scoreChoices(batches, (done) => onProgress(done / batches.length));
  const flat = found.flat();
  let at = 0;
  const scores = items.map((own) => flat.slice(at, at += own.length).flat());
  const hits = judge(questions, scores);
  const divided = scores.map((values, i) => values.map((value, choice) => value / questions[i].lengths[choice]));
  return {
    name,
    questions: questions.length,
    accuracy: shareOf(hits),
    ...(isNormalized(name) && { normalizedAccuracy: shareOf(judge(questions, divided)) }),
    hits,
    scores,
  };
}

/** 1 for each question whose right choice has the highest score, the first of equal ones counting. */
function judge(questions: readonly Question[], scores: readonly (readonly number[])[]): number[] {
  return questions.map(({ answer }, i) => scores[i].indexOf(Math.max(...scores[i])) === answer ? 1 : 0);
}

function shareOf(hits: readonly number[]): Estimate {
  return clusteredMean(hits.map((hit) => [hit]));
}

/**
 * Tokens of a question's requests: one item where all have the same context, else one each. As in the harness, space at
 * a context's end belongs to the continuation, the continuation's tokens are those of the whole text beyond the
 * context's own, and what is too long for the model loses its start.
 */
function toItems(requests: readonly Request[], tokenizer: Tokenizer, limit: number): ChoiceItem[] {
  const encode = (text: string) => [...tokenizer.prefix, ...tokenizer.encode(text)];
  const pairs = requests.map(({ context, continuation }) => {
    const start = encode(stripEnd(context));
    const end = encode(context + continuation).slice(start.length);
    if (end.length === 0 || end.length >= limit) {
      throw new RangeError(
        `${JSON.stringify(continuation)} has ${end.length} tokens after its context, must have 1 to ${limit - 1}`,
      );
    }
    return { context: start.slice(Math.max(0, start.length + end.length - limit)), end };
  });
  const [first] = pairs;
  const shared = pairs.every(({ context }) => context.join() === first.context.join());
  const groups = shared ? [pairs] : pairs.map((pair) => [pair]);
  return groups.map((group) => ({
    context: Uint32Array.from(group[0].context),
    continuations: group.map(({ end }) => Uint32Array.from(end)),
  }));
}
