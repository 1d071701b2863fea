/**
 * What experiments share during a run, made lazily and once.
 *
 * @module
 */
import { describeAdapter } from "../kernels/gpu/adapter.ts";
import { openGpu } from "../kernels/gpu/gpu.ts";
import { type Calibrator, createCalibrator, createFixedCalibrator } from "../model/quantize/calibrator.ts";
import { createEngineScorer } from "../model/evaluate/engine_scorer.ts";
import { evaluateModel, type EvaluationPlan, prepareEvaluation } from "../model/evaluate/evaluation.ts";
import type { Model } from "../model/llama/llama.ts";
import { type LoadedModel, loadModel } from "../model/load.ts";
import { CALIBRATION_SIZES } from "../quant/recipe.ts";
import { createCpuScorer, type Scorer } from "../model/evaluate/scorer.ts";
import { shareDeep } from "../model/host/shared.ts";
import { readTask, type TaskFile } from "../model/evaluate/tasks.ts";
import { isWikitext, loadText, WIKITEXT_WINDOW } from "../model/text/text.ts";
import { sampleWindows } from "../model/text/windows.ts";
import { type CpuPool, createCpuPool } from "../model/workers/cpu_pool.ts";
import type { Baseline, ExperimentContext } from "./experiment.ts";

/** What a run is made with. */
export interface RunSettings {
  readonly quick: boolean;
  readonly seed: number;
  /** `tiny`, a directory or `hf:ORG/NAME[@REVISION]`. */
  readonly modelName: string;
  /** Name of the evaluation text. */
  readonly textName: string;
  /** Files of multiple-choice questions that accuracy is measured on too. */
  readonly taskFiles: readonly TaskFile[];
}

/** Sizes of a full and of a quick run. */
const FULL: Omit<EvaluationPlan, "seed"> = { windows: 32, windowTokens: 512, choices: 256 };
const QUICK: Omit<EvaluationPlan, "seed"> = { windows: 8, windowTokens: 512, choices: 48 };
/** WikiText-2 is evaluated as the papers do that report it: all windows of 2048 tokens. */
const WIKITEXT = {
  full: { windows: 2 ** 20, windowTokens: WIKITEXT_WINDOW },
  quick: { windows: QUICK.windows, windowTokens: WIKITEXT_WINDOW },
};
const QUICK_CALIBRATION_WINDOWS = 12;

/** Creates the context of a run; dispose it to end its workers. */
export function createContext(
  settings: RunSettings,
  progress: ExperimentContext["progress"],
): ExperimentContext & Disposable {
  const { quick, seed, modelName } = settings;
  const pool = createCpuPool();
  let model: Promise<LoadedModel> | undefined;
  let sharedModel: Promise<Model> | undefined;
  let baseline: Promise<Baseline> | undefined;
  let fixedCalibrator: Promise<Calibrator> | undefined;
  let scoring: Promise<OpenScorer> | undefined;
  let closeScorer = () => {};
  const context: ExperimentContext = {
    quick,
    seed,
    pool,
    progress,
    decodeSpeeds: new Map(),
    async scorer() {
      const opened = await (scoring ??= openScorer(pool));
      closeScorer = opened.close;
      return opened.scorer;
    },
    model: () => model ??= loadModel(modelName, progress),
    sharedModel: () => sharedModel ??= context.model().then(({ model }) => shareDeep(model)),
    baseline: () => baseline ??= makeBaseline(settings, context),
    async calibrator(correctTarget) {
      const { config, embedding } = await context.sharedModel();
      const { windows } = (await context.baseline()).calibration;
      return createCalibrator(pool, config, { embedding, windows, correctTarget });
    },
    fixedCalibrator: () => fixedCalibrator ??= makeFixedCalibrator(context),
  };
  const close = () => {
    pool[Symbol.dispose]();
    closeScorer();
  };
  return { ...context, [Symbol.dispose]: close };
}

interface OpenScorer {
  readonly scorer: Scorer;
  readonly close: () => void;
}

/** Scores on the GPU where there is a real one; a software adapter is slower than the CPU reference. */
async function openScorer(pool: CpuPool): Promise<OpenScorer> {
  if ((await describeAdapter())?.software !== false) return { scorer: createCpuScorer(pool), close: () => {} };
  const gpu = await openGpu();
  return { scorer: createEngineScorer(gpu), close: () => gpu.close() };
}

async function makeFixedCalibrator(context: ExperimentContext): Promise<Calibrator> {
  context.progress(0, "measuring the unquantized model's inputs");
  return await createFixedCalibrator(await context.calibrator(false), (await context.sharedModel()).layers);
}

async function makeBaseline(settings: RunSettings, context: ExperimentContext): Promise<Baseline> {
  const { quick, seed, textName } = settings;
  const { model, tokenizer } = await context.model();
  const { config } = model;
  const plan = { ...(quick ? QUICK : FULL), ...(isWikitext(textName) && WIKITEXT[quick ? "quick" : "full"]), seed };
  const tasks = await Promise.all(settings.taskFiles.map(readTask));
  const set = prepareEvaluation(await loadText(textName), tokenizer, config, plan, tasks);
  const text = await loadText("calibration");
  const calibration = sampleWindows(text, tokenizer, {
    length: Math.min(plan.windowTokens, config.context),
    count: quick ? QUICK_CALIBRATION_WINDOWS : CALIBRATION_SIZES.cpu.windows,
  });
  const scorer = await context.scorer();
  await scorer.setModel(await context.sharedModel());
  const reference = await evaluateModel(
    scorer,
    set,
    "reference",
    (share) => context.progress(share / 20, "evaluating the unquantized model"),
  );
  return { set, reference, calibration, scoredOn: scorer.device };
}
