// The recommended way to quantize a model: the method's settings.
import type { FeedbackSettings } from "./error_feedback.ts";
import { WITHOUT_OUTLIERS } from "./outliers.ts";
import type { TwobitQuantizer, TwobitSettings } from "./twobit.ts";

/** Bits a weight that the paper claims and that a model must not exceed, every stored bit of its linear layers counted. */
export const BUDGET_BITS = 2.85;

/** Error feedback of the method: groups with the most energetic inputs first. */
export const FEEDBACK: FeedbackSettings = { damping: 0.1, order: "groups" };

export interface CalibrationSize {
  readonly windows: number;
  /** Tokens of each; at most the model's context. */
  readonly windowTokens: number;
}

/**
 * What is taken by default, on the CPU and on a GPU that isn't a software one. More tokens give better targets (perplexity
 * over unquantized, embedded model at one density, 32 windows of 512: 1.075, 64: 1.065, 128: 1.057). Four times as many gain
 * nothing on Wikipedia and 2 to 3 % elsewhere on SmolLM2-135M (docs/accuracy_study.md), so small models take about as many;
 * Llama-2-7B would take 28 GB of activations for them where 128 windows take 8.
 */
export const CALIBRATION_SIZES: Readonly<Record<"cpu" | "gpu" | "gpuSmall", CalibrationSize>> = {
  cpu: { windows: 40, windowTokens: 512 },
  gpu: { windows: 128, windowTokens: 512 },
  gpuSmall: { windows: 448, windowTokens: 512 },
};

/** Weights of the linear layers below which a model is small. */
export const SMALL_WEIGHTS = 1e9;

/** How much is taken by default for a model with so many weights in its linear layers. */
export function calibrationSize(isRealGpu: boolean, weights: number): CalibrationSize {
  if (!isRealGpu) return CALIBRATION_SIZES.cpu;
  return weights < SMALL_WEIGHTS ? CALIBRATION_SIZES.gpuSmall : CALIBRATION_SIZES.gpu;
}

/**
 * Share of the windows that the model writes itself where that stands beside other texts: on SmolLM2-135M a quarter takes
 * conversations from 1.61 to 1.47 of the unquantized perplexity and leaves Wikipedia as it is (docs/accuracy_study.md).
 */
export const SELF_WRITTEN_SHARE = 0.25;

/** Weights of the linear layers up to which the default has self-written text: as f16 they take 40 GB of the device. */
export const SELF_WRITTEN_WEIGHTS = 20e9;

/**
 * Calibration tokens from which on corrected targets need no care. From 65,000 on they were always better as they are than
 * with a strength that held-out windows decide; with 20,000 tokens of foreign text the latter is worth 1 to 2 %
 * (docs/accuracy_study.md).
 */
export const ENOUGH_TOKENS = 40_000;

/**
 * Random tokens by which the method `search` weighs channels, on the CPU and on a GPU. On the embedded model (32 windows of
 * held-out speeches) perplexity over unquantized is 1.217 with 8 windows and 1.219 with 40; SmolLM2 was measured with 40.
 */
export const RANDOM_SIZES: Readonly<Record<"cpu" | "gpu", CalibrationSize>> = {
  cpu: { windows: 8, windowTokens: 512 },
  gpu: { windows: 40, windowTokens: 512 },
};

/** Settings of the method: one refined group in 8, picked where the error falls most, no outliers. */
export const SETTINGS: TwobitSettings = { refineEvery: 8, pick: "error", outliers: WITHOUT_OUTLIERS, seed: 1 };

/** Name of a way to find codes. */
export type QuantizeMethod = "corrected" | "feedback" | "search";

/** Ways to find codes, the default first: see `quantizeModel`. */
export const QUANTIZE_METHODS: readonly QuantizeMethod[] = ["corrected", "feedback", "search"];

/** How densities are chosen. */
export type DensityRule = "uniform" | "kl";

/** Ways to choose densities: see `quantizeModel`. */
export const DENSITY_RULES: readonly DensityRule[] = ["uniform", "kl"];

/**
 * Whether densities are measured and scales tuned where nobody says it: of small models on a GPU that isn't a software one,
 * where both take a minute or two. Of larger ones what they cost has not been measured.
 */
export function isImproved(isRealGpu: boolean, weights: number, method: QuantizeMethod): boolean {
  return isRealGpu && weights < SMALL_WEIGHTS && method === "corrected";
}

/**
 * The method with some settings changed, with or without its two steps of calibration. Without them channels are weighed
 * by the energy of their inputs: where all count alike, models with a few loud channels are lost.
 */
export function twobitQuantizer(
  changes: Partial<TwobitSettings> = {},
  method: QuantizeMethod = QUANTIZE_METHODS[0],
): TwobitQuantizer {
  if (method === "search") {
    return { kind: "twobit", settings: { ...SETTINGS, pick: "error_hessian", ...changes }, weighsChannels: true };
  }
  const settings = { ...SETTINGS, ...changes };
  return { kind: "twobit", settings, feedback: FEEDBACK, correctTarget: method === "corrected" };
}
