// The methods that tables compare, by the names that they have there.
import type { FeedbackSettings } from "../quant/error_feedback.ts";
import type { Quantizer } from "../quant/quantize.ts";
import { greenbitLayout, PAPER_LAYOUT, plainLayout, type StripLayout } from "../quant/baselines/strip_layout.ts";
import type { ScaleSearch } from "../quant/baselines/strip_scales.ts";
import type { LinearKind } from "../model/llama/layer.ts";
import { FEEDBACK, SETTINGS, twobitQuantizer } from "../quant/recipe.ts";

/** How a method quantizes a matrix, by kind. */
export type Method = (kind: LinearKind) => Quantizer;

/** GPTQ's own damping, and its act-order with static groups. */
export const GPTQ_FEEDBACK: FeedbackSettings = { damping: 0.01, order: "channels" };

/** Round to nearest with min/max scales. */
export function rtn(bits: 2 | 4, groupChannels: number): Method {
  return baseline(plainLayout(bits, groupChannels), "minmax", false);
}

/** GPTQ with min/max scales in static groups and act-order. */
export function gptq(bits: 2 | 4, groupChannels: number): Method {
  return baseline(plainLayout(bits, groupChannels), "minmax", true);
}

/** Greenbit-like: second-order scales, no mixed bits; scales searched, error feedback as for the others. */
export function greenbit(groupChannels: number): Method {
  return baseline(greenbitLayout(groupChannels), "weighted_error", true);
}

/** llama.cpp's Q2_K, its most used 2-bit format, without and with an importance matrix. */
export const q2k: Method = () => ({ kind: "q2_k" });
export const q2kImatrix: Method = () => ({ kind: "q2_k", weighsChannels: true });

/** The paper's layout as reconstructed; scales searched, error feedback as for the others. */
export const paperLayout: Method = baseline(PAPER_LAYOUT, "weighted_error", true);

/** The paper's layout with everything that our method has but its layout: corrected targets, and their damping. */
export const paperLayoutCorrected: Method = () => ({
  kind: "strips",
  settings: { layout: PAPER_LAYOUT, search: "weighted_error" },
  feedback: { ...FEEDBACK, order: "channels" },
  correctTarget: true,
});

/** The method, without and with its two steps of calibration. */
export const twobitSearch: Method = () => twobitQuantizer({}, "search");
export const twobitFeedback: Method = () => ({ kind: "twobit", settings: SETTINGS, feedback: FEEDBACK });
export const twobit: Method = () => twobitQuantizer();

function baseline(layout: StripLayout, search: ScaleSearch, withFeedback: boolean): Method {
  const quantizer: Quantizer = {
    kind: "strips",
    settings: { layout, search },
    ...(withFeedback && { feedback: GPTQ_FEEDBACK }),
  };
  return () => quantizer;
}
