// Quantizing a model by name into a packed file.
import { join } from "@std/path";
import type { RefineEvery } from "../quant/format.ts";
import { storedBytes } from "../quant/quantize.ts";
import { type DensityRule, FEEDBACK, isImproved, SETTINGS, twobitQuantizer } from "../quant/recipe.ts";
import { reportQuantization } from "../quant/report.ts";
import type { Checkpoint } from "./files/checkpoint.ts";
import { INDEX } from "./files/checkpoint_folder.ts";
import { CARRIED_FILES, isPacked } from "./files/packed_checkpoint.ts";
import { refuseReplacing } from "./host/atomic_file.ts";
import { lockPath } from "./host/path_lock.ts";
import { LINEAR_KINDS, type LinearKind, linearName, linearWeights, STAGES } from "./llama/layer.ts";
import type { Layer } from "./llama/llama.ts";
import { openModel, watchWeights } from "./load.ts";
import { calibrationOf, chooseCalibration } from "./quantize/choose_calibration.ts";
import { densitiesFor, type StageDensities } from "./quantize/choose_densities.ts";
import { whyNotTuned } from "./quantize/cpu_device.ts";
import { readInterrupted, refuseOther } from "./quantize/finished_layers.ts";
import type { LayerBefore, QuantizePlan } from "./quantize/quantize_layers.ts";
import { writePackedFile } from "./quantize/packed_writer.ts";
import type { StageLossPlan, StoredLayer } from "./quantize/quantizing_device.ts";
import { whyLeftOut } from "./quantize/why_left_out.ts";
import {
  askedDensities,
  askedSettings,
  checkSomeLeft,
  type MatrixReport,
  type QuantizeOptions,
  type QuantizeSettings,
  settingsOf,
  type TuningChoice,
} from "./quantize_options.ts";
import type { TuningReport } from "./tune/tune_model.ts";
import { checkTuning } from "./tune/tuning_limits.ts";
import { TUNING } from "./tune/tuning_plan.ts";
import { openQuantizingPlace, type QuantizingPlace } from "./workers/quantizing_place.ts";

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
  /** Why it wasn't, where it would be by default. */
  readonly whyUntuned?: string;
  /** Why densities are uniform, where `kl` was asked for or is the default. */
  readonly whyUniform?: string;
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
  const interrupted = options.resume ? await readInterrupted(path) : undefined;
  using checkpoint = await openModel(name, onProgress);
  await refuseReplacing(path, sourcesOf(checkpoint));
  if (isPacked(checkpoint)) throw new Error(`${checkpoint.name} is packed already, must be a checkpoint directory`);
  const isExcluded = (layer: number, kind: LinearKind) =>
    exclude !== undefined && linearName(layer, kind).search(exclude) >= 0;
  checkSomeLeft(isExcluded, checkpoint.config.layers, exclude);
  using place = await openQuantizingPlace(options.device ?? "auto", checkpoint.config, quantizer);
  options.onDevice?.(place);
  if (options.tune && place.kind === "cpu") throw whyNotTuned();
  let tuning: TuningReport | undefined;
  let whyUntuned: string | undefined;
  let whyUniform: string | undefined;
  const onPlan = (plan: TuningChoice) => {
    whyUntuned = plan.reason;
    options.onPlan?.(plan);
  };
  const onDensities = (chosen: StageDensities | string) => {
    whyUniform = typeof chosen === "string" ? chosen : undefined;
    options.onDensities?.(chosen);
  };
  const source = await watchWeights(checkpoint);
  const made = { sourceSha256: source.sha256, device: place.kind };
  if (interrupted) refuseOther(path, interrupted, { ...askedSettings(options, settings, interrupted), ...made });
  const given = { ...calibrationOf(interrupted), ...options.calibration };
  const { text, windows } = await chooseCalibration(checkpoint, {
    ...{ method, path, seed, given, isTiny: name === "tiny", sourceSha256: source.sha256 },
    ...{ isRealGpu: place.isRealGpu, gpu: place.gpu, signal, onProgress, onCalibration: options.onCalibration },
  });
  const totals = { weights: 0, bytes: 0 };
  const isQuantized = (layer: number, kind: LinearKind) => !isExcluded(layer, kind);
  const quantizerOf = (refineEvery: RefineEvery) => twobitQuantizer({ ...changes, refineEvery }, method);
  const { densityRule, ...choice } = await chooseImprovements(place, checkpoint, windows, isQuantized, {
    ...settings,
    densities: askedDensities(options, interrupted),
    tune: options.tune,
  });
  onPlan(choice);
  const askedRule = interrupted?.densityRule ?? densityRule;
  if (askedRule === "kl" && densityRule !== "kl" && askedDensities(options, undefined) !== "uniform") {
    onDensities("those of the interrupted run are");
  }
  const densities = densityRule === "kl"
    ? await densitiesFor(place.device, checkpoint, {
      ...{ ...options, interrupted, method, windows, isQuantized, quantizerOf, onDensities },
      isAsked: options.densities === "kl",
    })
    : undefined;
  const densityOf = (layer: number, kind: LinearKind) =>
    densities?.[layer][STAGES.findIndex(({ linears }) => linears.includes(kind))] ?? refine;
  await writePackedFile(place.device, checkpoint, {
    path,
    metadata: {
      sourceSha256: made.sourceSha256,
      settings: JSON.stringify({
        ...settings,
        ...text,
        densities: densities ? "kl" : "uniform",
        densityRule: askedRule,
        refine: densities ?? refine,
        device: made.device,
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
    ...(options.tune === undefined && { onUntuned: (reason: string) => onPlan({ tune: false, reason }) }),
    ...(options.onEpoch && { onEpoch: options.onEpoch }),
    onTuned: ({ before, after, epoch }) => void (tuning = { before, after, epoch }),
    tellsHessians: onMatrix !== undefined,
    onStage(stored, layer, hessian) {
      refuseLost(stored, layer);
      if (onMatrix) reportStage([stored, layer, hessian], onMatrix);
    },
    onLayer(stored, { index, original }) {
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
    ...(whyUntuned !== undefined && { whyUntuned }),
    ...(whyUniform !== undefined && { whyUniform }),
  };
}

/** What is done beyond the method: as asked for or begun, else by the model and the place. */
async function chooseImprovements(
  { gpu, isRealGpu }: QuantizingPlace,
  { config }: Checkpoint,
  windows: readonly Uint32Array[],
  isQuantized: StageLossPlan["isQuantized"],
  { method, seed, densities, tune }: QuantizeSettings & {
    readonly densities: unknown;
    readonly tune: boolean | undefined;
  },
): Promise<TuningChoice & { readonly densityRule: DensityRule }> {
  const isDefault = isImproved(isRealGpu, linearWeights(config), method);
  const densityRule = (densities ?? (isDefault ? "kl" : "uniform")) === "kl" ? "kl" : "uniform";
  if (!(tune ?? isDefault) || !gpu) return { densityRule, tune: tune ?? false };
  try {
    await checkTuning(gpu, config, windows, { settings: { ...TUNING, seed }, isQuantized });
    return { densityRule, tune: true };
  } catch (error) {
    if (tune) throw error;
    return { densityRule, tune: false, reason: whyLeftOut(error) };
  }
}

/** All files of a model, which may lack some of them. */
function sourcesOf({ name, files }: Checkpoint): string[] {
  return [...files, ...[...CARRIED_FILES, INDEX].map((file) => join(name, file))];
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
function refuseLost(stored: StoredLayer, { index, original: { linears } }: LayerBefore): void {
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
