import type { Model } from "../../../model/llama/llama.ts";
import { createCpuScorer } from "../../../model/evaluate/scorer.ts";
import { loadModel } from "../../../model/load.ts";
import { CHOICE_TASKS, type ChoiceTaskName } from "../../../model/evaluate/questions.ts";
import { prepareTask, readTask, scoreTask, type Task } from "../../../model/evaluate/tasks.ts";
import type { Tokenizer } from "../../../model/text/tokenizer.ts";
import { type CpuPool, createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { assertAlmostEquals, assertClose, assertEquals, assertRejects } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

/** Scores a model on a task. */
async function evaluateTask(pool: CpuPool, model: Model, tokenizer: Tokenizer, task: Task) {
  const scorer = createCpuScorer(pool);
  await scorer.setModel(model);
  return await scoreTask(scorer, prepareTask(task, tokenizer, model.config.context));
}

const TASKS = new URL("../../fixtures/tasks/", import.meta.url).pathname;

/** Made by lm-evaluation-harness 0.4.13 on model/tiny (tests/fixtures/make_tasks.py). */
interface Expected {
  readonly acc: number;
  readonly acc_stderr: number;
  readonly acc_norm: number | null;
  readonly acc_norm_stderr: number | null;
  readonly scores: number[][];
}

const EXPECTED: Record<string, Expected> = JSON.parse(await Deno.readTextFile(`${TASKS}expected.json`));

Deno.test("evaluateTask: scores, acc, acc_norm and standard errors are those of lm-evaluation-harness", async (t) => {
  const { model, tokenizer } = await loadModel("tiny");
  using pool = createCpuPool();
  for (const [name, expected] of Object.entries(EXPECTED)) {
    await t.step(name, async () => {
      const task = await readTask({ name: name as ChoiceTaskName, path: `${TASKS}${name}.jsonl` });
      const { accuracy, normalizedAccuracy, scores } = await evaluateTask(pool, model, tokenizer, task);
      for (const [i, wanted] of expected.scores.entries()) assertClose(scores[i], wanted, 1e-3);
      assertAlmostEquals(accuracy.value, expected.acc, 1e-12);
      assertAlmostEquals(accuracy.standardError, expected.acc_stderr, 1e-12);
      assertEquals(normalizedAccuracy === undefined, expected.acc_norm === null);
      if (!normalizedAccuracy) return;
      assertAlmostEquals(normalizedAccuracy.value, expected.acc_norm!, 1e-12);
      assertAlmostEquals(normalizedAccuracy.standardError, expected.acc_norm_stderr!, 1e-12);
    });
  }
});

Deno.test("readTask: ARC's first layout gives the same questions", () =>
  inDirectory(async (directory) => {
    const rows = (await Deno.readTextFile(`${TASKS}arc_easy.jsonl`)).trim().split("\n").map((line) => JSON.parse(line));
    const first = rows.map(({ question, choices: { text, label }, answerKey }) => ({
      question: { stem: question, choices: text.map((text: string, i: number) => ({ text, label: label[i] })) },
      answerKey,
    }));
    await Deno.writeTextFile(`${directory}/arc`, first.map((row) => JSON.stringify(row)).join("\n"));
    const { questions } = await readTask({ name: "arc_challenge", path: `${directory}/arc` });
    assertEquals(questions, (await readTask({ name: "arc_easy", path: `${TASKS}arc_easy.jsonl` })).questions);
  }));

Deno.test("prepareTask: choices with one context are one item, choices with different contexts one each", () => {
  const units: Tokenizer = {
    encode: (text) => Uint32Array.from(text, (char) => char.charCodeAt(0)),
    decode: (tokens) => String.fromCharCode(...Array.from(tokens)),
    vocabulary: 1 << 16,
    prefix: Uint32Array.of(7),
  };
  const question = (...pairs: [context: string, continuation: string][]) => ({
    requests: pairs.map(([context, continuation]) => ({ context, continuation })),
    lengths: pairs.map(([, { length }]) => length),
    answer: 0,
  });
  const questions = [question(["ab", " c"], ["ab", " de"]), question(["ab", " c"], ["ax", " c"])];
  const items = prepareTask({ name: "piqa", questions }, units, 16).items.map((own) =>
    own.map(({ context, continuations }) => [context, ...continuations].map((tokens) => units.decode(tokens)))
  );
  assertEquals(items, [[["\x07ab", " c", " de"]], [["\x07ab", " c"], ["\x07ax", " c"]]]);
});

Deno.test("evaluateTask: what is too long loses its start, a choice beyond the context is refused", async () => {
  const { model, tokenizer } = await loadModel("tiny");
  using pool = createCpuPool(1);
  const short = { ...model, config: { ...model.config, context: 16 } };
  const question = (context: string, choice: string) => ({
    requests: [{ context, continuation: " it" }, { context, continuation: choice }],
    lengths: [2, 4],
    answer: 0,
  });
  const score = async (context: string, choice = " they") => {
    const questions = [question(context, choice), question(context, choice)];
    return (await evaluateTask(pool, short, tokenizer, { name: "piqa", questions })).scores[0];
  };
  // Each word is a token, so both texts end in the same 15 tokens before the choice.
  const end = " and the and the and the and the and the and the and the and";
  assertClose(await score(`one two three${end} the`), await score(`four five${end} the`), 1e-5);
  await assertRejects(
    () => score("a", " the".repeat(16)),
    RangeError,
    "has 16 tokens after its context, must have 1 to 15",
  );
});

const GOOD: Readonly<Record<ChoiceTaskName, object>> = {
  piqa: { goal: "g", sol1: "a", sol2: "b", label: 0 },
  hellaswag: { activity_label: "x", ctx_a: "a", ctx_b: "b", endings: ["c", "d"], label: "1" },
  arc_easy: { question: "q", choices: { text: ["a", "b"], label: ["A", "B"] }, answerKey: "B" },
  arc_challenge: {
    question: { stem: "q", choices: [{ text: "a", label: "A" }, { text: "b", label: "B" }] },
    answerKey: "A",
  },
  winogrande: { sentence: "a _ b", option1: "x", option2: "y", answer: "2" },
};

const BAD: readonly (readonly [name: ChoiceTaskName, changes: object, message: string])[] = [
  ["piqa", { label: 2 }, "line 3: label is 2, must be one of 0, 1"],
  ["piqa", { label: undefined }, "line 3: label is undefined, must be one of 0, 1"],
  ["hellaswag", { endings: "c" }, 'line 3: endings is "c", must be a list of texts'],
  ["hellaswag", { label: "" }, 'line 3: label is "", must be one of 0, 1'],
  ["arc_easy", { answerKey: "C" }, 'line 3: answerKey is "C", must be one of A, B'],
  ["arc_easy", { choices: { text: ["a"], label: ["A", "B"] } }, "2 labels for 1 choices, must be one each"],
  ["arc_challenge", { question: { stem: "q" } }, "must be one of "],
  ["winogrande", { sentence: "none" }, 'sentence is "none", must have a _'],
];

for (const [name, changes, message] of BAD) {
  Deno.test(`readTask: ${name} with ${JSON.stringify(changes)} is refused`, () =>
    inDirectory(async (directory) => {
      const lines = [GOOD[name], undefined, { ...GOOD[name], ...changes }];
      await Deno.writeTextFile(`${directory}/t`, lines.map((row) => row ? JSON.stringify(row) : "").join("\n"));
      await assertRejects(() => readTask({ name, path: `${directory}/t` }), SyntaxError, message);
    }));
}

Deno.test("readTask: good rows of every task, and files that are no questions", () =>
  inDirectory(async (directory) => {
    for (const name of CHOICE_TASKS) {
      await Deno.writeTextFile(`${directory}/t`, `${JSON.stringify(GOOD[name])}\n`.repeat(3));
      assertEquals((await readTask({ name, path: `${directory}/t` })).questions.length, 3);
    }
    await Deno.writeTextFile(`${directory}/t`, "{\n");
    await assertRejects(
      () => readTask({ name: "piqa", path: `${directory}/t` }),
      SyntaxError,
      "t, line 1 is not valid JSON",
    );
    await Deno.writeTextFile(`${directory}/t`, "");
    await assertRejects(
      () => readTask({ name: "piqa", path: `${directory}/t` }),
      SyntaxError,
      "has 0 questions, must have at least 2",
    );
  }));
