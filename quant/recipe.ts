/**
 * The recommended way to quantize a model: the method's settings.
 *
 * @module
 */
import type { FeedbackSettings } from "./error_feedback.ts";
import { WITHOUT_OUTLIERS } from "./outliers.ts";
import type { TwobitQuantizer, TwobitSettings } from "./twobit.ts";

/** Bits a weight that the paper claims and that a model must not exceed, every stored bit of its linear layers counted. */
export const BUDGET_BITS = 2.85;

/** Error feedback of the method: groups with the most energetic inputs first. */
export const FEEDBACK: FeedbackSettings = { damping: 0.1, order: "groups" };

/** Calibration windows of 512 tokens. More give better targets (perplexity over unquantized at one density, 32: 1.075, 64: 1.065, 128: 1.057). */
export const DEFAULT_WINDOWS = 40;

/** Settings of the method: one refined group in 8, picked where the error falls most, no outliers. */
export const SETTINGS: TwobitSettings = { refineEvery: 8, pick: "error", outliers: WITHOUT_OUTLIERS, seed: 1 };

/** Ways to find codes, the default first: see `quantizeModel`. */
export const QUANTIZE_METHODS = ["corrected", "feedback", "search"] as const;

/** Name of a way to find codes. */
export type QuantizeMethod = typeof QUANTIZE_METHODS[number];

/** The method with some settings changed, with or without its two steps of calibration. */
export function twobitQuantizer(
  changes: Partial<TwobitSettings> = {},
  method: QuantizeMethod = QUANTIZE_METHODS[0],
): TwobitQuantizer {
  return {
    kind: "twobit",
    settings: { ...SETTINGS, ...changes },
    ...(method !== "search" && { feedback: FEEDBACK, correctTarget: method === "corrected" }),
  };
}
