// The options that decode less exactly, as tables name them.
import type { DecodePrecision } from "../../model/engine/precision.ts";

/** What is set otherwise than by default. */
export const PRECISIONS: Readonly<Record<string, DecodePrecision>> = {
  "8-bit activations": { activationBits: 8 },
  "8-bit keys and values": { cacheBits: 8 },
  "8-bit activations, keys and values": { activationBits: 8, cacheBits: 8 },
};

/** From so many tokens on the bits of keys and values are worth timing. */
const MANY_TOKENS = 1024;

/** Those that are worth timing at a context, by the format of their rows. */
export function optionFormats(context: number): { readonly format: string; readonly precision: DecodePrecision }[] {
  return Object.entries(PRECISIONS)
    .filter(([, { cacheBits }]) => cacheBits === undefined || context >= MANY_TOKENS)
    .map(([option, precision]) => ({ format: `twobit, ${option}`, precision }));
}

/** What tables of speed say of them, among their settings. */
export const OPTION_SETTINGS: Readonly<Record<string, string>> = {
  [Object.keys(PRECISIONS).join("; ")]:
    "the same weights decoded less exactly, speed alone; decode_precision says what that costs",
};
