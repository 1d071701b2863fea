// The options that decode less exactly, as tables name them.
import type { DecodePrecision } from "../../model/engine/precision.ts";

/** What is set otherwise than by default. */
export const PRECISIONS: Readonly<Record<string, DecodePrecision>> = {
  "8-bit activations": { activationBits: 8 },
};

/** The same by the format of rows that are about speed. */
export const OPTION_FORMATS = Object.entries(PRECISIONS).map(([option, precision]) => ({
  format: `twobit, ${option}`,
  precision,
}));

/** What tables of speed say of them, among their settings. */
export const OPTION_SETTINGS: Readonly<Record<string, string>> = {
  [Object.keys(PRECISIONS).join(", ")]:
    "the same weights decoded less exactly, speed alone; decode_precision says what that costs",
};
