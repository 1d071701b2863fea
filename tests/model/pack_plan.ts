// How tests pack a checkpoint where it isn't the packing that they test.
import type { PackedFilePlan } from "../../model/quantize/packed_writer.ts";
import { SETTINGS } from "../../quant/recipe.ts";

/** Packs all linear layers without calibration, changed as wanted. */
export function packPlan(path: string, changes: Partial<PackedFilePlan> = {}): PackedFilePlan {
  return {
    path,
    calibration: [],
    correctTarget: false,
    metadata: { sourceSha256: "0".repeat(64), settings: "{}" },
    resume: false,
    quantizerOf: () => ({ kind: "twobit", settings: SETTINGS }),
    ...changes,
  };
}
