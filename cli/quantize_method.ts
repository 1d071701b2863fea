/**
 * The methods of `quantize`, by name.
 *
 * @module
 */
import { FEEDBACK, SETTINGS } from "../quant/recipe.ts";
import type { Quantizer } from "../quant/quantize.ts";
import type { TwobitSettings } from "../quant/twobit.ts";
import { type OptionValues, textOption, UsageError } from "./command.ts";

/** Names, the default first. */
export const QUANTIZE_METHODS = ["corrected", "feedback", "search"] as const;

/** Name of a method. */
export type QuantizeMethod = typeof QUANTIZE_METHODS[number];

/** Reads an option that names a method. */
export function methodOption(options: OptionValues, option: string): QuantizeMethod {
  const wanted = textOption(options, option, QUANTIZE_METHODS[0]);
  const method = QUANTIZE_METHODS.find((name) => name === wanted);
  if (!method) throw new UsageError(`--${option} is ${wanted}, must be one of ${QUANTIZE_METHODS.join(", ")}`);
  return method;
}

/** The quantizer of a method. */
export function methodQuantizer(method: QuantizeMethod, changes: Partial<TwobitSettings> = {}): Quantizer {
  return {
    kind: "twobit",
    settings: { ...SETTINGS, ...changes },
    ...(method !== "search" && { feedback: FEEDBACK, correctTarget: method === "corrected" }),
  };
}
