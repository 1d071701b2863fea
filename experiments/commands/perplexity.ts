/**
 * `deno task perplexity`: how well a model predicts a text.
 *
 * @module
 */
import { evaluateModel, prepareEvaluation } from "../../model/evaluation.ts";
import { loadModel } from "../../model/load.ts";
import { CHOICE_TASKS } from "../../model/questions.ts";
import type { Estimate } from "../../model/statistics.ts";
import { evaluateTask, readTask, type TaskScore } from "../../model/tasks.ts";
import { loadText } from "../../model/text.ts";
import { createWorkerPool } from "../../model/worker_pool.ts";
import { type Command, evaluationTextOption, integerOption, taskFilesOption, textOption } from "./command.ts";
import { createProgressLine } from "./progress.ts";

/** Measures perplexity on the CPU reference. */
export const perplexity: Command = {
  name: "perplexity",
  summary: "Measures a model's perplexity on a text and its accuracy on task files, with the CPU reference.",
  positionals: [],
  options: {
    model: {
      type: "string",
      value: "tiny|DIR|F.safetensors",
      help: "Model: a checkpoint or a packed file (default tiny).",
    },
    text: { type: "string", value: "NAME", help: "Text: sotu (default), moby or file:PATH." },
    windows: { type: "string", value: "N", help: "Windows, spread evenly over the text (default 64)." },
    "window-tokens": { type: "string", value: "N", help: "Tokens of a window, BOS included (default 512)." },
    tasks: {
      type: "string",
      value: "NAME:FILE,...",
      help: `Also score multiple-choice questions as lm-evaluation-harness does; NAME: ${CHOICE_TASKS.join(", ")}; ` +
        "FILE: JSON lines in that data set's layout.",
    },
    json: { type: "boolean", help: "Print JSON." },
  },
  async run(options) {
    const name = textOption(options, "model", "tiny");
    const plan = {
      windows: integerOption(options, "windows", 64, 2, 2 ** 20),
      windowTokens: integerOption(options, "window-tokens", 512, 2, 65536),
      choices: 0,
      seed: 1,
    };
    const tasks = await Promise.all(taskFilesOption(options).map(({ name, path }) => readTask(name, path)));
    const { model, tokenizer, sha256 } = await loadModel(name);
    const set = prepareEvaluation(await loadText(evaluationTextOption(options)), tokenizer, model.config, plan);
    const line = createProgressLine("perplexity");
    using pool = createWorkerPool();
    const { perplexity, top1 } = await evaluateModel(pool, model, set, "alone", (share) => line.update(share, ""));
    const scores: TaskScore[] = [];
    for (const task of tasks) {
      scores.push(await evaluateTask(pool, model, tokenizer, task, (share) => line.update(share, task.name)));
    }
    line.clear();
    const { windows, text } = set.windows;
    const predicted = windows.length * (windows[0].length - 1);
    const report = { model: name, sha256, text, windows: windows.length, predicted, perplexity, top1, tasks: scores };
    console.log(
      options.json === true
        ? JSON.stringify(report, null, 1)
        : `${name} on ${text}: perplexity ${perplexity.value.toFixed(4)} ± ${perplexity.standardError.toFixed(4)}, ` +
          `next token right ${(100 * top1.value).toFixed(2)} %, ${predicted} tokens in ${windows.length} windows${
            scores.map(describeScore).join("")
          }`,
    );
    return 0;
  },
};

function describeScore({ name, questions, accuracy, normalizedAccuracy }: TaskScore): string {
  const percent = ({ value, standardError }: Estimate) =>
    `${(100 * value).toFixed(2)} ± ${(100 * standardError).toFixed(2)} %`;
  return `\n${name}: acc ${percent(accuracy)}${
    normalizedAccuracy ? `, acc_norm ${percent(normalizedAccuracy)}` : ""
  }, ${questions} questions`;
}
