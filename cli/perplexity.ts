// `deno task perplexity`: how well a model predicts a text.
import { describeAdapter } from "../kernels/gpu/adapter.ts";
import { createEngineScorer } from "../model/evaluate/engine_scorer.ts";
import { loadEngine } from "../model/load_engine.ts";
import { evaluateModel, prepareEvaluation } from "../model/evaluate/evaluation.ts";
import type { ModelConfig } from "../model/llama/config.ts";
import type { DownloadProgress } from "../model/hub/hub_model.ts";
import { hashWeights, loadModel, openModel } from "../model/load.ts";
import { createCpuScorer, type Scorer } from "../model/evaluate/scorer.ts";
import type { Estimate } from "../model/host/statistics.ts";
import { readTask, type TaskScore } from "../model/evaluate/tasks.ts";
import { isWikitext, loadText, WIKITEXT_WINDOW } from "../model/text/text.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { createCpuPool } from "../model/workers/cpu_pool.ts";
import {
  type Command,
  evaluationTextOption,
  integerOption,
  modelOption,
  oneOfOption,
  type OptionValues,
  taskFilesOption,
  TASKS_OPTION,
  TEXT_HELP,
  textOption,
  UsageError,
  WEBGPU_OPTION,
} from "./command.ts";
import { createProgressLine, formatPercent } from "./progress.ts";

const MAX_WINDOWS = 2 ** 20;

export const perplexity: Command = {
  name: "perplexity",
  summary: "Measures a model's perplexity on a text and its accuracy on task files.",
  options: {
    model: modelOption("Model"),
    text: { value: "NAME", help: TEXT_HELP },
    windows: { value: "N", help: "Windows, spread evenly over the text (default 64; of wikitext2 all)." },
    "window-tokens": {
      value: "N",
      help: `Tokens of a window, BOS included (default 512; of wikitext2 ${WIKITEXT_WINDOW}).`,
    },
    tasks: TASKS_OPTION,
    device: {
      value: "NAME",
      help: "Where the text is scored: gpu, cpu, or auto (default), the GPU where there is one.",
    },
    ...WEBGPU_OPTION,
    json: { help: "Print JSON." },
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
    using line = createProgressLine("perplexity");
    const tasks = await Promise.all(taskFilesOption(options).map(readTask));
    const isOnGpu = await choosesGpu(options);
    if (options["window-tokens"] !== undefined) {
      await checkContext(name, plan.windowTokens, (share, file) => line.update(share, file));
    }
    using opened = await (isOnGpu ? openOnGpu : openOnCpu)(name, (share, what) => line.update(share, what));
    const { config, tokenizer, sha256, scorer } = opened;
    const set = prepareEvaluation(await loadText(textName), tokenizer, config, plan, tasks);
    const evaluation = await evaluateModel(scorer, set, "alone", (share) => line.update(share, ""));
    line.clear();
    const { perplexity, top1, tasks: scores } = evaluation;
    const { windows, text } = set.windows;
    const predicted = windows.length * (windows[0].length - 1);
    const report = {
      model: name,
      sha256,
      text,
      windows: windows.length,
      predicted,
      device: scorer.device,
      perplexity,
      top1,
      tasks: scores,
    };
    console.log(
      options.json === true
        ? JSON.stringify(report, null, 1)
        : `${name} on ${text}: perplexity ${perplexity.value.toFixed(4)} ± ${perplexity.standardError.toFixed(4)}, ` +
          `next token right ${
            formatPercent(top1.value)
          }, ${predicted} tokens in ${windows.length} windows, ${scorer.device}${scores.map(describeScore).join("")}`,
    );
    return 0;
  },
};

/** @throws {UsageError} when a window is longer than the model's context */
async function checkContext(name: string, windowTokens: number, onDownload: DownloadProgress): Promise<void> {
  using checkpoint = await openModel(name, onDownload);
  const { context } = checkpoint.config;
  if (windowTokens <= context) return;
  throw new UsageError(`--window-tokens is ${windowTokens}, must be at most the model's context of ${context}`);
}

/** Whether the text is scored on the GPU. @throws {UsageError} */
async function choosesGpu(options: OptionValues): Promise<boolean> {
  const device = oneOfOption(options, "device", ["auto", "cpu", "gpu"], "auto");
  if (device !== "auto") return device === "gpu";
  return (await describeAdapter())?.software === false;
}

interface OpenModel extends Disposable {
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly sha256: string;
  readonly scorer: Scorer;
}

async function openOnCpu(name: string, onProgress: (share: number, what: string) => void): Promise<OpenModel> {
  const { model, tokenizer, sha256 } = await loadModel(name, onProgress);
  const pool = createCpuPool();
  const scorer = createCpuScorer(pool);
  await scorer.setModel(model);
  return { config: model.config, tokenizer, sha256, scorer, [Symbol.dispose]: () => pool[Symbol.dispose]() };
}

/** Opens a model on the GPU in the format that it has; a packed one stays packed. */
async function openOnGpu(name: string, onProgress: (share: number, what: string) => void): Promise<OpenModel> {
  using checkpoint = await openModel(name, onProgress);
  const sha256 = await hashWeights(checkpoint);
  const engine = await loadEngine(name, { onProgress: (share) => onProgress(share, "weights") });
  const { config, tokenizer, gpu, weights } = engine;
  const scorer = createEngineScorer(gpu, weights);
  const close = () => {
    scorer[Symbol.dispose]();
    engine[Symbol.dispose]();
  };
  return { config, tokenizer, sha256, scorer, [Symbol.dispose]: close };
}

function describeScore({ name, questions, accuracy, normalizedAccuracy }: TaskScore): string {
  const percent = ({ value, standardError }: Estimate) =>
    `${(100 * value).toFixed(2)} ± ${(100 * standardError).toFixed(2)} %`;
  return `\n${name}: acc ${percent(accuracy)}${
    normalizedAccuracy ? `, acc_norm ${percent(normalizedAccuracy)}` : ""
  }, ${questions} questions`;
}
