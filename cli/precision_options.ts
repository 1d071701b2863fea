// Options of commands that decode less exactly and faster.
import type { DecodePrecision } from "../model/engine/precision.ts";
import { type Option, type OptionValues, textOption, UsageError } from "./command.ts";

export const PRECISION_OPTIONS: Readonly<Record<string, Option>> = {
  activations: {
    value: "8|16",
    help: "Bits of the activations that packed weights are multiplied with, of up to 4 texts at once (default 16).",
  },
};

/** How exactly to decode. @throws {UsageError} */
export function precisionOption(options: OptionValues): DecodePrecision {
  const activations = textOption(options, "activations", "16");
  if (activations !== "8" && activations !== "16") {
    throw new UsageError(`--activations is ${activations}, must be 8 or 16`);
  }
  return { activationBits: activations === "8" ? 8 : 16 };
}
