/**
 * `deno task perplexity`: how well a model predicts a text.
 *
 * @module
 */
import { describeAdapter } from "../../kernels/adapter.ts";
import { loadEngine } from "../../model/load_engine.ts";
import { evaluateEngine } from "../../model/evaluate_engine.ts";
import { evaluateModel, prepareEvaluation } from "../../model/evaluation.ts";
import { loadModel } from "../../model/load.ts";
import { CHOICE_TASKS } from "../../model/questions.ts";
import type { Estimate } from "../../model/statistics.ts";
import { evaluateTask, readTask, type TaskScore } from "../../model/tasks.ts";
import { isWikitext, loadText, WIKITEXT_WINDOW } from "../../model/text.ts";
import type { Windows } from "../../model/windows.ts";
import { createWorkerPool } from "../../model/worker_pool.ts";
import {
  type Command,
  evaluationTextOption,
  integerOption,
  MODEL_HELP,
  type OptionValues,
  taskFilesOption,
  TEXT_HELP,
  textOption,
  UsageError,
} from "./command.ts";
import { createProgressLine } from "./progress.ts";

const MAX_WINDOWS = 2 ** 20;

/** Measures perplexity. */
export const perplexity: Command = {
  name: "perplexity",
  summary: "Measures a model's perplexity on a text and its accuracy on task files; tasks run on the CPU.",
  positionals: [],
  options: {
    model: {
      type: "string",
      value: "tiny|DIR|F.gguf|F.safetensors|hf:ORG/NAME[@REVISION]",
      help: `Model: a packed file, ${MODEL_HELP}.`,
    },
    text: { type: "string", value: "NAME", help: TEXT_HELP },
    windows: {
      type: "string",
      value: "N",
      help: "Windows, spread evenly over the text (default 64; of wikitext2 all).",
    },
    "window-tokens": {
      type: "string",
      value: "N",
      help: `Tokens of a window, BOS included (default 512; of wikitext2 ${WIKITEXT_WINDOW}).`,
    },
    tasks: {
      type: "string",
      value: "NAME:FILE,...",
      help: `Also score multiple-choice questions as lm-evaluation-harness does; NAME: ${CHOICE_TASKS.join(", ")}; ` +
        "FILE: JSON lines in that data set's layout.",
    },
    device: {
      type: "string",
      value: "NAME",
      help: "Where the text is scored: gpu, cpu, or auto (default), the GPU where there is one.",
    },
    json: { type: "boolean", help: "Print JSON." },
  },
  async run(options) {
    const name = textOption(options, "model", "tiny");
    const textName = evaluationTextOption(options);
    const [windowCount, windowTokens] = isWikitext(textName) ? [MAX_WINDOWS, WIKITEXT_WINDOW] : [64, 512];
    const plan = {
      windows: integerOption(options, "windows", windowCount, 2, MAX_WINDOWS),
      windowTokens: integerOption(options, "window-tokens", windowTokens, 2, 65536),
      choices: 0,
      seed: 1,
    };
    const line = createProgressLine("perplexity");
    const tasks = await Promise.all(taskFilesOption(options).map(({ name, path }) => readTask(name, path)));
    const isOnGpu = await choosesGpu(options);
    const { model, tokenizer, sha256 } = await loadModel(name, (share, file) => line.update(share, file));
    const set = prepareEvaluation(await loadText(textName), tokenizer, model.config, plan);
    using pool = createWorkerPool();
    const onProgress = (share: number) => line.update(share, "");
    const { perplexity, top1 } = isOnGpu
      ? await evaluateOnGpu(name, set.windows, onProgress)
      : await evaluateModel(pool, model, set, "alone", onProgress);
    const scores: TaskScore[] = [];
    for (const task of tasks) {
      scores.push(await evaluateTask(pool, model, tokenizer, task, (share) => line.update(share, task.name)));
    }
    line.clear();
    const { windows, text } = set.windows;
    const predicted = windows.length * (windows[0].length - 1);
    const device = isOnGpu ? "gpu" : "cpu";
    const report = {
      model: name,
      sha256,
      text,
      windows: windows.length,
      predicted,
      device,
      perplexity,
      top1,
      tasks: scores,
    };
    console.log(
      options.json === true
        ? JSON.stringify(report, null, 1)
        : `${name} on ${text}: perplexity ${perplexity.value.toFixed(4)} ± ${perplexity.standardError.toFixed(4)}, ` +
          `next token right ${
            (100 * top1.value).toFixed(2)
          } %, ${predicted} tokens in ${windows.length} windows, ${device}${scores.map(describeScore).join("")}`,
    );
    return 0;
  },
};

/** Whether the text is scored on the GPU. @throws {UsageError} */
async function choosesGpu(options: OptionValues): Promise<boolean> {
  const device = textOption(options, "device", "auto");
  if (!["auto", "cpu", "gpu"].includes(device)) {
    throw new UsageError(`--device is ${device}, must be one of auto, cpu, gpu`);
  }
  if (device !== "auto") return device === "gpu";
  return (await describeAdapter())?.software === false;
}

async function evaluateOnGpu(name: string, windows: Windows, onProgress: (share: number) => void) {
  using engine = await loadEngine(name);
  return await evaluateEngine(engine, windows, onProgress);
}

function describeScore({ name, questions, accuracy, normalizedAccuracy }: TaskScore): string {
  const percent = ({ value, standardError }: Estimate) =>
    `${(100 * value).toFixed(2)} ± ${(100 * standardError).toFixed(2)} %`;
  return `\n${name}: acc ${percent(accuracy)}${
    normalizedAccuracy ? `, acc_norm ${percent(normalizedAccuracy)}` : ""
  }, ${questions} questions`;
}
