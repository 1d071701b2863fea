// What can be asked of quantizing a model into a packed file, and what of it can't be.
import { REFINE_EVERY, type RefineEvery } from "../quant/format.ts";
import { DENSITY_RULES, type DensityRule, QUANTIZE_METHODS, type QuantizeMethod, SETTINGS } from "../quant/recipe.ts";
import type { QuantizationReport } from "../quant/report.ts";
import { LINEAR_KINDS, type LinearKind } from "./llama/layer.ts";
import type { CalibrationOptions, UsedCalibration } from "./quantize/choose_calibration.ts";
import type { StageDensities } from "./quantize/choose_densities.ts";
import type { RunSettings } from "./quantize/finished_layers.ts";
import { splitCalibration } from "./text/calibration_names.ts";
import { type PlaceName, QUANTIZING_PLACES, type QuantizingPlace } from "./workers/quantizing_place.ts";

export type { CalibrationOptions, UsedCalibration };

/** How `quantizeModel` quantizes, and whom it tells. */
export interface QuantizeOptions {
  /**
   * `corrected` (default): error feedback towards targets corrected for what earlier layers lost; `feedback`: error
   * feedback alone; `search`: scales only, channels weighed by what random tokens make of them, without a text.
   */
  readonly method?: QuantizeMethod;
  /** One refined group in every so many of all matrices; 8 by default. */
  readonly refine?: RefineEvery;
  /**
   * `uniform`: one density for all matrices; `kl` (default of small models on a GPU that isn't a software one): as many
   * refined groups in each stage of each layer as make the model lose least within 2.85 bits a weight, by what it loses
   * where that stage alone is quantized. That is measured on a GPU with room for the whole model in 16 bits; elsewhere,
   * and without a text, densities are uniform.
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

/** What the packed file's metadata records of how it was made. */
export interface QuantizeSettings {
  readonly method: QuantizeMethod;
  readonly refine: RefineEvery;
  readonly outliers: number;
  readonly seed: number;
  readonly layers: string;
}

/** @throws {RangeError} for options out of range */
export function settingsOf(options: QuantizeOptions): QuantizeSettings {
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

/** How densities are to be chosen; an interrupted run whose rule is `kl` too may have found no room for it. */
export function askedDensities({ densities, refine }: QuantizeOptions, interrupted: RunSettings | undefined): unknown {
  if (refine !== undefined || densities === "uniform") return "uniform";
  if (densities === "kl" && interrupted?.densityRule !== "kl") return densities;
  return interrupted?.densities ?? densities;
}

/**
 * What is asked for of the settings of an interrupted run: of its text and densities what somebody names, since those that
 * nobody named are gone on with as the run chose them.
 */
export function askedSettings(
  options: QuantizeOptions,
  { refine, ...settings }: QuantizeSettings,
  interrupted: RunSettings,
): RunSettings {
  const { text, windows, windowTokens } = options.calibration?.tokens ? {} : options.calibration ?? {};
  const densities = askedDensities(options, interrupted);
  return {
    ...settings,
    densities,
    ...(densities === "uniform" && { refine }),
    ...(text !== undefined && settings.method !== "search" && { calibration: text }),
    ...(windows !== undefined && { windows }),
    ...(windowTokens !== undefined && { windowTokens }),
  };
}

function checkOneOf(name: string, value: string | number, values: readonly (string | number)[]): void {
  if (!values.includes(value)) throw new RangeError(`${name} is ${value}, must be one of ${values.join(", ")}`);
}

function checkCount(name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new RangeError(`${name} is ${value}, must be a whole number from ${least} on`);
}

/** @throws {NothingToQuantizeError} */
export function checkSomeLeft(
  isExcluded: (layer: number, kind: LinearKind) => boolean,
  layers: number,
  exclude: RegExp | undefined,
): void {
  for (let layer = 0; layer < layers; layer++) {
    if (!LINEAR_KINDS.every((kind) => isExcluded(layer, kind))) return;
  }
  throw new NothingToQuantizeError(`exclude is ${exclude}, must leave a matrix to quantize`);
}
