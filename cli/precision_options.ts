// Options of commands that decode less exactly and faster.
import type { DecodePrecision } from "../model/engine/precision.ts";
import { oneOfOption, type Option, type OptionValues } from "./command.ts";

export const PRECISION_OPTIONS: Readonly<Record<string, Option>> = {
  activations: {
    value: "8|16",
    help: "Bits of the activations that packed weights are multiplied with, of up to 4 texts at once (default 16).",
  },
  "cache-bits": {
    value: "8|16",
    help:
      "Bits of a key's or value's element in the cache; 8 is for long contexts of heads with keys of their own (default 16).",
  },
};

/** How exactly to decode. @throws {UsageError} */
export function precisionOption(options: OptionValues): DecodePrecision {
  return {
    activationBits: oneOfOption<8 | 16>(options, "activations", [8, 16], 16),
    cacheBits: oneOfOption<8 | 16>(options, "cache-bits", [8, 16], 16),
  };
}
