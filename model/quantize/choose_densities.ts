/**
 * Choosing the density of each stage of each layer by what the model loses there.
 *
 * @module
 */
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { allocateDensities, type DensityUnit } from "../../quant/densities/allocate_densities.ts";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import { BUDGET_BITS, SETTINGS } from "../../quant/recipe.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { linearShape, STAGES } from "../llama/layer.ts";
import type { QuantizingDevice, StageLosses, StageLossPlan } from "./quantizing_device.ts";

/** For each layer the density of each of its stages: one refined group in every so many. */
export type StageDensities = readonly (readonly RefineEvery[])[];

/**
 * Measures what each stage loses and shares the budget's bits out by that.
 *
 * @returns why densities can't differ, where they can't
 */
export async function chooseDensities(
  { measureLosses }: QuantizingDevice,
  checkpoint: Checkpoint,
  plan: StageLossPlan,
): Promise<StageDensities | string> {
  if (!measureLosses) return "what layers lose is measured on a GPU alone";
  const losses = await measureLosses(checkpoint, plan).catch((error) => {
    if (!(error instanceof OutOfMemoryError)) throw error;
    return error.message;
  });
  if (typeof losses === "string") return losses;
  return shareBits(checkpoint.config, losses, plan.isQuantized) ??
    `even without refined groups the layers take more than ${BUDGET_BITS} bits a weight`;
}

/** Densities of least loss; those of stages with nothing to quantize don't matter. */
function shareBits(
  config: ModelConfig,
  losses: StageLosses,
  isQuantized: StageLossPlan["isQuantized"],
): StageDensities | undefined {
  const units: (DensityUnit & { readonly layer: number; readonly stage: number })[] = [];
  for (const [layer, found] of losses.entries()) {
    for (const [stage, loss] of found.entries()) {
      const kinds = STAGES[stage].linears.filter((kind) => isQuantized(layer, kind));
      if (loss !== undefined) {
        units.push({
          layer,
          stage,
          loss,
          shapes: kinds.map((kind) => linearShape(config, kind)),
        });
      }
    }
  }
  const chosen = allocateDensities(units, BUDGET_BITS);
  if (!chosen) return undefined;
  const densities = losses.map((found) => found.map(() => SETTINGS.refineEvery));
  for (const [i, { layer, stage }] of units.entries()) densities[layer][stage] = chosen[i];
  return densities;
}

/** Densities as JSON has them; undefined for anything else. */
export function asStageDensities(value: unknown, layers: number): StageDensities | undefined {
  const isDensity = (every: unknown) => REFINE_EVERY.some((known) => known === every);
  const isLayer = (stages: unknown) =>
    Array.isArray(stages) && stages.length === STAGES.length && stages.every(isDensity);
  return Array.isArray(value) && value.length === layers && value.every(isLayer) ? value : undefined;
}
