// What experiments share during a run, made lazily and once.
import { createHash } from "node:crypto";
import { join } from "@std/path";
import {
  evaluateModel,
  type EvaluationPlan,
  type EvaluationSet,
  prepareEvaluation,
} from "../model/evaluate/evaluation.ts";
import { readTask, type TaskFile } from "../model/evaluate/tasks.ts";
import { shareDeep } from "../model/host/shared.ts";
import { chooseCalibration } from "../model/quantize/choose_calibration.ts";
import { hashWeights, loadModel, openModel } from "../model/load.ts";
import { isWikitext, loadText, WIKITEXT_WINDOW } from "../model/text/text.ts";
import { createCpuPool } from "../model/workers/cpu_pool.ts";
import { openQuantizingGpu, type PlaceName } from "../model/workers/quantizing_place.ts";
import { FORMAT_VERSION } from "../quant/format.ts";
import { CALIBRATION_SIZES, type QuantizeMethod, twobitQuantizer } from "../quant/recipe.ts";
import { describeChanges, describeCommit, describeText } from "./provenance.ts";
import type { Baseline, ExperimentContext, OpenedModel } from "./experiment.ts";
import { type RowsState, UNKEPT_ROWS } from "./finished_rows.ts";
import { gpuPlace } from "./models/gpu_place.ts";
import { cpuPlace, type ModelPlace } from "./models/model_place.ts";

export interface RunSettings {
  readonly quick: boolean;
  readonly seed: number;
  /** `tiny`, a directory or `hf:ORG/NAME[@REVISION]`. */
  readonly modelName: string;
  readonly textName: string;
  /** Name of the calibration text; by default the one that `quantize` takes for the model. */
  readonly calibrationName?: string;
  /** A file that the model was packed into; by default `end_to_end` packs it itself. */
  readonly quantizedName?: string;
  /** Files of multiple-choice questions that accuracy is measured on too. */
  readonly taskFiles: readonly TaskFile[];
  /** Where to quantize and score; by default `auto`. */
  readonly device?: PlaceName;
  /** Directory of what the model writes for its calibration; by default the current one. */
  readonly directory?: string;
}

/** Sizes of a full and of a quick run, which decides nothing by multiple choice: 32 items would leave 8 %. */
const FULL: Omit<EvaluationPlan, "seed"> = { windows: 32, windowTokens: 512, choices: 256 };
const QUICK: Omit<EvaluationPlan, "seed"> = { windows: 8, windowTokens: 512, choices: 0 };
/**
 * On a GPU there is time for so many that next-token accuracies differ by less than 0.1 points by chance: on
 * SmolLM2-135M and WikiText-2 twobit's and the unquantized model's by 0.08, where 128 windows leave 0.14 and take 1.3 s
 * less a row.
 */
const FULL_ON_GPU: typeof FULL = { ...FULL, windows: 384 };
/** WikiText-2 is evaluated as the papers do that report it: all windows of 2048 tokens. */
const WIKITEXT = {
  full: { windows: 2 ** 20, windowTokens: WIKITEXT_WINDOW },
  quick: { windows: QUICK.windows, windowTokens: WIKITEXT_WINDOW },
};
/** An even number of parts of what is calibrated together, so that two workers have the same to do. */
const QUICK_CALIBRATION_WINDOWS = 8;

/** Creates the context of a run, which keeps no rows; dispose it to end its workers and close its files. */
export function createContext(
  settings: RunSettings,
  progress: ExperimentContext["progress"],
): ExperimentContext & Disposable {
  const { quick, seed, modelName, textName, directory = ".", quantizedName } = settings;
  const owned = new DisposableStack();
  const pool = owned.use(createCpuPool());
  const context: ExperimentContext = {
    quick,
    seed,
    textName,
    directory,
    pool,
    progress,
    ...(quantizedName !== undefined && { quantizedName }),
    measured: new Map(),
    decodeSpeeds: new Map(),
    opened: once(() => openOnce(modelName, progress, owned)),
    model: once(() => loadModel(modelName, progress)),
    sharedModel: once(() => context.model().then(({ model }) => shareDeep(model))),
    place: once(() => openPlace(settings, context, owned)),
    baseline: once(() => makeBaseline(settings, context)),
    randomWindows: () => calibrationOf(settings, context, "search").then(({ windows }) => windows),
    describeState: (set, calibration) => describeState(settings, context, set, calibration),
    finishedRows: () => Promise.resolve(UNKEPT_ROWS),
  };
  return { ...context, [Symbol.dispose]: () => owned[Symbol.dispose]() };
}

/** A function that makes something when it is first called. */
export function once<A extends unknown[], T>(make: (...given: A) => Promise<T>): (...given: A) => Promise<T> {
  let made: Promise<T> | undefined;
  return (...given) => made ??= make(...given);
}

async function openOnce(
  name: string,
  progress: ExperimentContext["progress"],
  owned: DisposableStack,
): Promise<OpenedModel> {
  const checkpoint = owned.use(await openModel(name, progress));
  return { name, checkpoint, sha256: await hashWeights(checkpoint) };
}

/** The GPU where `quantize` would take it for this model, else the CPU. */
async function openPlace(
  { device = "auto", seed, directory }: RunSettings,
  { opened, pool, sharedModel }: ExperimentContext,
  owned: DisposableStack,
): Promise<ModelPlace> {
  const { checkpoint } = await opened();
  // Of all methods the one that needs the most of a device.
  const { gpu } = await openQuantizingGpu(device, checkpoint.config, twobitQuantizer());
  return owned.use(gpu ? gpuPlace(gpu, pool, checkpoint, { seed, directory }) : cpuPlace(pool, sharedModel));
}

async function makeBaseline(settings: RunSettings, context: ExperimentContext): Promise<Baseline> {
  const { quick, seed, textName } = settings;
  const { checkpoint: { config, tokenizer } } = await context.opened();
  const { scorer, gpu, isRealGpu, scoreUnquantized } = await context.place();
  const sizes = quick ? QUICK : isRealGpu ? FULL_ON_GPU : FULL;
  const plan = { ...sizes, ...(isWikitext(textName) && WIKITEXT[quick ? "quick" : "full"]), seed };
  const tasks = await Promise.all(settings.taskFiles.map(readTask));
  const prepared = prepareEvaluation(await loadText(textName), tokenizer, config, plan, tasks);
  const set = { ...prepared, windows: { ...prepared.windows, text: await describeText(textName) } };
  const calibration = await calibrationOf(settings, context, "corrected", plan.windowTokens);
  await scoreUnquantized();
  const reference = await evaluateModel(
    scorer,
    set,
    "reference",
    (share) => context.progress(share / 20, "evaluating the unquantized model"),
  );
  const state = await context.describeState(set, calibration);
  return { set, reference, calibration, scoredOn: scorer.device, ...(gpu && { quantizedOn: gpu.adapterName }), state };
}

async function describeState(
  { quick, seed, textName, taskFiles }: RunSettings,
  { opened, place }: ExperimentContext,
  set: EvaluationSet,
  calibration: Baseline["calibration"],
): Promise<RowsState> {
  const [{ sha256 }, { scorer }] = [await opened(), await place()];
  return {
    "model": sha256,
    // Rows of other code would stand in a result that names this one.
    "commit": await describeCommit(),
    "changes": await describeChanges(),
    "format": FORMAT_VERSION,
    "quick": quick,
    seed,
    "text": textName,
    "windows": set.windows.windows.length,
    "tasks": taskFiles.map(({ name }) => name).join(", "),
    "calibration": calibration.text,
    "calibration windows": calibration.windows.length,
    "scored on": scorer.device,
    "tokens": hashTokens(set, calibration),
  };
}

/**
 * Calibration windows: as `quantize` takes them for the model, the place and the method; of text for the embedded one,
 * whose tables came first, as many and as long on every machine.
 */
async function calibrationOf(
  { quick, seed, modelName, calibrationName, directory = "." }: RunSettings,
  { opened, place, progress }: Pick<ExperimentContext, "opened" | "place" | "progress">,
  method: QuantizeMethod,
  evaluatedTokens = FULL.windowTokens,
): Promise<Baseline["calibration"]> {
  const { checkpoint, sha256 } = await opened();
  const { gpu, isRealGpu } = await place();
  const isTiny = modelName === "tiny";
  await Deno.mkdir(directory, { recursive: true });
  const { text, windows } = await chooseCalibration(checkpoint, {
    method,
    given: method === "search" ? {} : {
      ...(calibrationName !== undefined && { text: calibrationName }),
      ...(isTiny && { windows: CALIBRATION_SIZES.cpu.windows, windowTokens: evaluatedTokens }),
      ...(quick && { windows: QUICK_CALIBRATION_WINDOWS }),
    },
    isTiny,
    isRealGpu,
    gpu,
    // What the model writes is kept there for later runs.
    path: join(directory, "calibration"),
    seed,
    sourceSha256: sha256,
    signal: undefined,
    onProgress: progress,
    onCalibration: undefined,
  });
  return { text: text.calibration, windows };
}

/** sha256 of everything that models read. */
function hashTokens({ windows, choices, tasks = [] }: EvaluationSet, calibration: Baseline["calibration"]): string {
  const hash = createHash("sha256");
  const items = [...choices?.items ?? [], ...tasks.flatMap(({ items }) => items.flat())];
  const texts = items.flatMap(({ context, continuations }) => [context, ...continuations]);
  for (const tokens of [...windows.windows, ...texts, ...calibration.windows]) hash.update(`${tokens.join()};`);
  return hash.digest("hex");
}
