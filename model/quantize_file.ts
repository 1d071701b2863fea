/**
 * Quantizing a model by name into a packed file.
 *
 * @module
 */
import { join } from "@std/path";
import { REFINE_EVERY, type RefineEvery } from "../quant/format.ts";
import { storedBytes } from "../quant/quantize.ts";
import {
  DENSITY_RULES,
  type DensityRule,
  FEEDBACK,
  isImproved,
  QUANTIZE_METHODS,
  type QuantizeMethod,
  SETTINGS,
  twobitQuantizer,
} from "../quant/recipe.ts";
import { type QuantizationReport, reportQuantization } from "../quant/report.ts";
import type { Checkpoint } from "./files/checkpoint.ts";
import { INDEX } from "./files/checkpoint_folder.ts";
import { CARRIED_FILES } from "./files/packed_checkpoint.ts";
import { refuseReplacing } from "./host/atomic_file.ts";
import { lockPath } from "./host/path_lock.ts";
import { LINEAR_KINDS, type LinearKind, linearName, linearWeights, STAGES } from "./llama/layer.ts";
import type { Layer } from "./llama/llama.ts";
import { openModel, watchWeights } from "./load.ts";
import { type CalibrationOptions, chooseCalibration, type UsedCalibration } from "./quantize/choose_calibration.ts";
import { densitiesFor, type StageDensities } from "./quantize/choose_densities.ts";
import { whyNotTuned } from "./quantize/cpu_device.ts";
import type { QuantizePlan } from "./quantize/quantize_layers.ts";
import { writePackedFile } from "./quantize/packed_writer.ts";
import type { StoredLayer } from "./quantize/quantizing_device.ts";
import type { TuningReport } from "./tune/tune_model.ts";
import { checkTuning } from "./tune/tuning_limits.ts";
import { TUNING } from "./tune/tuning_plan.ts";
import { splitCalibration } from "./text/calibration_names.ts";
import {
  openQuantizingPlace,
  type PlaceName,
  QUANTIZING_PLACES,
  type QuantizingPlace,
} from "./workers/quantizing_place.ts";

export type { CalibrationOptions, UsedCalibration };

/** How {@linkcode quantizeModel} quantizes, and whom it tells. */
export interface QuantizeOptions {
  /**
   * `corrected` (default): error feedback towards targets corrected for what earlier layers lost; `feedback`: error
   * feedback alone; `search`: scales only, channels weighed by what random tokens make of them, without a text.
   */
  readonly method?: QuantizeMethod;
  /** One refined group in every so many of all matrices; 8 by default. */
  readonly refine?: RefineEvery;
  /**
   * `uniform`: one density for all matrices; `kl` (default of small models on a GPU that isn't a software one): as many refined groups in each stage of each layer as make the
   * model lose least within 2.85 bits a weight, by what it loses where that stage alone is quantized. That is measured on a
   * GPU with room for the whole model in 16 bits; elsewhere, and without a text, densities are uniform.
   */
  readonly densities?: DensityRule;
  /** Share of weights kept in 16 bits, 0 (default) to 0.05. */
  readonly outliers?: number;
  /** Matrices whose name matches stay in 16 bits. */
  readonly exclude?: RegExp;
  /** What to calibrate on, where the method does; else, where it is given, what reported errors are weighted by. */
  readonly calibration?: CalibrationOptions;
  /** Where to quantize; with `auto` (default) on the GPU where there is a real one that does what is asked for. */
  readonly device?: PlaceName;
  /** Seed of everything random, 1 by default. */
  readonly seed?: number;
  /**
   * Tunes second-order scales and norms after that, along gradients of the divergence from the unquantized model's next-token
   * distribution, on the calibration text; on a GPU alone, and for corrected targets. Default: for small models on a GPU that
   * isn't a software one, where it has room.
   */
  readonly tune?: boolean;
  /** Goes on with the layers that an interrupted run of the same settings left beside the file; else they are removed. */
  readonly resume?: boolean;
  /** Told of the share done, 0..1, and of what is being done. */
  readonly onProgress?: (share: number, step: string) => void;
  /** Told of each finished layer: how many are, and how many there are. */
  readonly onLayer?: (finished: number, layers: number) => void;
  /** Told of each epoch of tuning, from 1 on, of how many, with the divergence on held-out windows after it, in nats. */
  readonly onEpoch?: (epoch: number, epochs: number, divergence: number) => void;
  /** Told where the model is quantized, once that is known. */
  readonly onDevice?: (place: Pick<QuantizingPlace, "kind" | "name" | "reason">) => void;
  /** Told what the model is calibrated on, once that is there. */
  readonly onCalibration?: (used: UsedCalibration) => void;
  /** Told of the densities that `kl` chose, or why they are uniform. */
  readonly onDensities?: (chosen: StageDensities | string) => void;
  /** Told whether scales are tuned, and why not where they would be by default. */
  readonly onPlan?: (plan: TuningChoice) => void;
  /** Told of each quantized matrix; finding its errors takes a little time. */
  readonly onMatrix?: (report: MatrixReport) => void;
  /** Ends the run with the signal's reason before the next matrices; finished layers stay for a later `resume`. */
  readonly signal?: AbortSignal;
}

/** Whether scales and norms are tuned. */
export interface TuningChoice {
  /** Whether they are. */
  readonly tune: boolean;
  /** Why they aren't where they would be by default. */
  readonly reason?: string;
}

/** Bits and errors of a quantized matrix. */
export interface MatrixReport extends QuantizationReport {
  /** Name of its tensor, without `.weight`. */
  readonly name: string;
  /** Output rows. */
  readonly rows: number;
  /** Input channels. */
  readonly channels: number;
  /** One refined group in every so many. */
  readonly refineEvery: RefineEvery;
}

/** What became of a model. */
export interface QuantizeReport {
  /** Where it was quantized: `the CPU`, or the GPU's name. */
  readonly device: string;
  /** Weights of the linear layers. */
  readonly weights: number;
  /** Bytes of the linear layers, excluded ones in 16 bits. */
  readonly bytes: number;
  /** Bits a weight of the linear layers, everything counted. */
  readonly bitsPerWeight: number;
  /** The most memory of the GPU that was held, in bytes. */
  readonly deviceBytes?: number;
  /** What tuning did, where the model was tuned. */
  readonly tuning?: TuningReport;
}

/**
 * No matrix is left to quantize: `exclude` matches all of them.
 *
 * ```ts
 * import { NothingToQuantizeError, quantizeModel } from "@twobit/twobit";
 * import { assertRejects } from "@std/assert";
 *
 * const options = { method: "search", exclude: /proj/ } as const;
 * await assertRejects(() => quantizeModel("tiny", "q.safetensors", options), NothingToQuantizeError);
 * ```
 */
export class NothingToQuantizeError extends RangeError {
  /** The class's name. */
  override readonly name = "NothingToQuantizeError";
}

/**
 * Quantizes the linear layers of a model into one packed file, which appears under its name when it is whole, in place of
 * one that was there. Until then finished layers lie beside it, in `path`.layers.
 *
 * ```ts
 * import { openModel, quantizeModel } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * const directory = await Deno.makeTempDir();
 * // All but the value projections stay in 16 bits, to keep the example short.
 * const exclude = /q_proj|k_proj|o_proj|mlp/;
 * const options = { method: "search", exclude, device: "cpu", calibration: { windows: 1, windowTokens: 64 } } as const;
 * const report = await quantizeModel("tiny", `${directory}/q.safetensors`, options);
 * assert(report.bitsPerWeight < 16);
 * using packed = await openModel(`${directory}/q.safetensors`);
 * assert(packed.config.layers === 5);
 * await Deno.remove(directory, { recursive: true });
 * ```
 *
 * @param name `tiny`, a directory, a GGUF file or `hf:ORG/NAME[@REVISION]`
 * @throws {SyntaxError} when the model can't be read
 * @throws {Error} when `path` is part of the model or no regular file, another run writes it, or the model changes
 * meanwhile
 * @throws {RangeError} for options out of range, a calibration text that is too short, layers that can't be gone on
 * with, or a matrix whose weights are too small
 * @throws {OutOfMemoryError} when the GPU has no room for the calibration text and a layer
 */
export async function quantizeModel(
  name: string,
  path: string,
  options: QuantizeOptions = {},
): Promise<QuantizeReport> {
  const { exclude, onProgress, onMatrix, signal } = options;
  const settings = settingsOf(options);
  const { method, refine, outliers, seed } = settings;
  const changes = { refineEvery: refine, outliers: { ...SETTINGS.outliers, share: outliers }, seed };
  const quantizer = twobitQuantizer(changes, method);
  using _lock = await lockPath(path);
  using checkpoint = await openModel(name, onProgress);
  await refuseReplacing(path, sourcesOf(checkpoint));
  if ("packed" in checkpoint) throw new Error(`${checkpoint.name} is packed already, must be a checkpoint directory`);
  const isExcluded = (layer: number, kind: LinearKind) =>
    exclude !== undefined && linearName(layer, kind).search(exclude) >= 0;
  checkSomeLeft(isExcluded, checkpoint.config.layers, exclude);
  using place = await openQuantizingPlace(options.device ?? "auto", checkpoint.config, quantizer);
  options.onDevice?.(place);
  if (options.tune && place.kind === "cpu") throw whyNotTuned();
  let tuning: TuningReport | undefined;
  const source = await watchWeights(checkpoint);
  const { text, windows } = await chooseCalibration(checkpoint, {
    ...{ method, path, seed, given: options.calibration, isTiny: name === "tiny", sourceSha256: source.sha256 },
    ...{ isRealGpu: place.isRealGpu, gpu: place.gpu, signal, onProgress, onCalibration: options.onCalibration },
  });
  const totals = { weights: 0, bytes: 0 };
  const isQuantized = (layer: number, kind: LinearKind) => !isExcluded(layer, kind);
  const quantizerOf = (refineEvery: RefineEvery) => twobitQuantizer({ ...changes, refineEvery }, method);
  const { densityRule, ...choice } = await chooseImprovements(place, checkpoint, windows, settings, options);
  options.onPlan?.(choice);
  const densities = densityRule === "kl"
    ? await densitiesFor(place.device, checkpoint, {
      ...{ ...options, path, method, windows, isQuantized, quantizerOf },
      isAsked: options.densities === "kl",
    })
    : undefined;
  const densityOf = (layer: number, kind: LinearKind) =>
    densities?.[layer][STAGES.findIndex(({ linears }) => linears.includes(kind))] ?? refine;
  await writePackedFile(place.device, checkpoint, {
    path,
    metadata: {
      sourceSha256: source.sha256,
      settings: JSON.stringify({
        ...settings,
        ...text,
        densities: densities ? "kl" : "uniform",
        refine: densities ?? refine,
        device: place.kind,
        feedback: FEEDBACK,
        quantizer: { ...quantizer.settings, ...(densities && { refineEvery: undefined }) },
      }),
    },
    checkSource: source.check,
    resume: options.resume ?? false,
    calibration: windows,
    correctTarget: method === "corrected",
    quantizerOf: (layer, kind) => isQuantized(layer, kind) ? quantizerOf(densityOf(layer, kind)) : undefined,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
    ...(choice.tune && { tuning: { ...TUNING, seed } }),
    ...(options.tune === undefined && { onUntuned: (reason: string) => options.onPlan?.({ tune: false, reason }) }),
    ...(options.onEpoch && { onEpoch: options.onEpoch }),
    onTuned: ({ before, after, epoch }) => void (tuning = { before, after, epoch }),
    ...(onMatrix && { onStage: (...stage) => reportStage(stage, onMatrix) }),
    onLayer(stored, { index, original }) {
      refuseLost(index, stored, original);
      count(totals, stored, original);
      options.onLayer?.(index + 1, checkpoint.config.layers);
    },
  });
  const { peakBytes } = place;
  return {
    device: place.name,
    ...totals,
    bitsPerWeight: (8 * totals.bytes) / totals.weights,
    ...(peakBytes !== undefined && { deviceBytes: peakBytes }),
    ...(tuning && { tuning }),
  };
}

/** What is done beyond the method: as asked for, else by the model and the place. */
async function chooseImprovements(
  { gpu, isRealGpu }: QuantizingPlace,
  checkpoint: Checkpoint,
  windows: readonly Uint32Array[],
  { method, seed }: QuantizeSettings,
  { densities, refine, tune }: QuantizeOptions,
): Promise<TuningChoice & { readonly densityRule: DensityRule }> {
  const isDefault = isImproved(isRealGpu, linearWeights(checkpoint.config), method);
  const densityRule = densities ?? (isDefault && refine === undefined ? "kl" : "uniform");
  if (!(tune ?? isDefault) || !gpu) return { densityRule, tune: tune ?? false };
  try {
    await checkTuning(gpu, checkpoint.config, windows, { ...TUNING, seed });
    return { densityRule, tune: true };
  } catch (error) {
    if (tune) throw error;
    return { densityRule, tune: false, reason: (error as Error).message };
  }
}

/** All files of a model, which may lack some of them. */
function sourcesOf({ name, files }: Checkpoint): string[] {
  return [...files, ...[...CARRIED_FILES, INDEX].map((file) => join(name, file))];
}

/** What the packed file's metadata records of how it was made. */
interface QuantizeSettings {
  readonly method: QuantizeMethod;
  readonly refine: RefineEvery;
  readonly outliers: number;
  readonly seed: number;
  readonly layers: string;
}

/** @throws {RangeError} for options out of range */
function settingsOf(options: QuantizeOptions): QuantizeSettings {
  const { method = QUANTIZE_METHODS[0], refine = SETTINGS.refineEvery, outliers = 0, seed = 1, exclude } = options;
  const { windows = 1, windowTokens = 2, tokens } = options.calibration ?? {};
  checkOneOf("method", method, QUANTIZE_METHODS);
  checkOneOf("densities", options.densities ?? "uniform", DENSITY_RULES);
  if (options.densities === "kl" && options.refine !== undefined) {
    throw new RangeError(`refine is ${refine} and densities is kl, must be one of them`);
  }
  checkOneOf("refine", refine, REFINE_EVERY);
  checkOneOf("device", options.device ?? "auto", QUANTIZING_PLACES);
  if (!(outliers >= 0 && outliers <= 0.05)) throw new RangeError(`outliers is ${outliers}, must be between 0 and 0.05`);
  checkCount("windows", tokens?.length ?? windows, 1);
  checkCount("windowTokens", windowTokens, 2);
  if (options.tune && method !== "corrected") {
    throw new RangeError(`method is ${method}, must be corrected to be tuned`);
  }
  if (options.calibration?.text !== undefined) splitCalibration(options.calibration.text);
  return { method, refine, outliers, seed, layers: exclude?.source ?? "" };
}

function checkOneOf(name: string, value: string | number, values: readonly (string | number)[]): void {
  if (!values.includes(value)) throw new RangeError(`${name} is ${value}, must be one of ${values.join(", ")}`);
}

function checkCount(name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new RangeError(`${name} is ${value}, must be a whole number from ${least} on`);
}

/** @throws {NothingToQuantizeError} */
function checkSomeLeft(
  isExcluded: (layer: number, kind: LinearKind) => boolean,
  layers: number,
  exclude: RegExp | undefined,
): void {
  for (let layer = 0; layer < layers; layer++) {
    if (!LINEAR_KINDS.every((kind) => isExcluded(layer, kind))) return;
  }
  throw new NothingToQuantizeError(`exclude is ${exclude}, must leave a matrix to quantize`);
}

function count(totals: { weights: number; bytes: number }, stored: StoredLayer, { linears }: Layer): void {
  for (const kind of LINEAR_KINDS) {
    const { rows, channels } = linears[kind];
    const tensor = stored.get(kind);
    totals.weights += rows * channels;
    totals.bytes += tensor ? storedBytes(tensor) : 2 * rows * channels;
  }
}

/** Below this the steps of scales in f16 are felt. */
const SMALL_WEIGHT = 2 ** -14;

/** Fails for a matrix that is lost since its scales are too small for f16. @throws {RangeError} */
function refuseLost(index: number, stored: StoredLayer, { linears }: Layer): void {
  for (const [kind, tensor] of stored) {
    const { weights } = linears[kind];
    // One of the first weights settles it for nearly every matrix.
    if (tensor.kind !== "twobit" || weights.some((weight) => Math.abs(weight) > SMALL_WEIGHT)) continue;
    if (reportQuantization(weights, tensor.tensor).relativeError < 0.5) continue;
    const name = linearName(index, kind);
    const largest = weights.reduce((largest, weight) => Math.max(largest, Math.abs(weight)), 0);
    throw new RangeError(`${name} has weights of at most ${largest}, too small for scales in f16, must be excluded`);
  }
}

function reportStage(
  [stored, { index, original: { linears } }, hessian]: Parameters<NonNullable<QuantizePlan["onStage"]>>,
  onMatrix: (report: MatrixReport) => void,
): void {
  for (const [kind, tensor] of stored) {
    const name = linearName(index, kind);
    if (tensor.kind !== "twobit") throw new TypeError(`${name} is stored as ${tensor.kind}, must be packed`);
    const { weights, rows, channels } = linears[kind];
    const { refineEvery } = tensor.tensor;
    onMatrix({ name, rows, channels, refineEvery, ...reportQuantization(weights, tensor.tensor, hessian) });
  }
}
