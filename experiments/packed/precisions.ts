// The options that decode less exactly, as tables name them.
import type { DecodePrecision } from "../../model/engine/precision.ts";

/** What is set otherwise than by default. */
export const PRECISIONS: Readonly<Record<string, DecodePrecision>> = {
  "8-bit activations": { activationBits: 8 },
  "8-bit keys and values": { cacheBits: 8 },
  "8-bit activations, keys and values": { activationBits: 8, cacheBits: 8 },
};
