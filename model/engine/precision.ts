// How exactly a session decodes, where less is faster.
import type { CacheBits } from "../../kernels/attention/key_value_cache.ts";
import type { ActivationBits } from "../../kernels/product/pack_activations.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { linearsOf } from "./layer_operations.ts";

/** How exactly the steps of sequences compute. */
export interface DecodePrecision {
  /**
   * Bits of an activation that packed weights are multiplied with in steps of up to four sequences, with a scale for 16
   * channels: 8 is faster. Prompts are multiplied as ever. Default: 16.
   */
  readonly activationBits?: ActivationBits;
  /**
   * Bits of an element of keys and values, also of a prompt's; with 8 each row of a head has a scale. They take half the
   * memory then, and those of long texts are read faster where heads have keys of their own. Default: 16.
   */
  readonly cacheBits?: CacheBits;
}

/** Refuses what would change nothing. @throws {RangeError} */
export function checkPrecision({ layers }: EngineWeights, { activationBits = 16 }: DecodePrecision): void {
  if (activationBits === 16 || linearsOf(layers).some(({ kind }) => kind === "packed")) return;
  throw new RangeError(`activations of ${activationBits} bits are for packed weights, the model's are f16: must be 16`);
}
