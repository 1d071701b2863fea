// Choosing the density of each stage of each layer by what the model loses there.
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { totalBits } from "../../quant/bits.ts";
import { allocateDensities, type DensityUnit } from "../../quant/densities/allocate_densities.ts";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import { quantizedBits, type Quantizer } from "../../quant/quantize.ts";
import { BUDGET_BITS, type QuantizeMethod, SETTINGS } from "../../quant/recipe.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { linearShape, STAGES } from "../llama/layer.ts";
import type { RunSettings } from "./finished_layers.ts";
import type { QuantizingDevice, StageLosses, StageLossPlan } from "./quantizing_device.ts";
import { whyLeftOut } from "./why_left_out.ts";

/** For each layer the density of each of its stages: one refined group in every so many. */
export type StageDensities = readonly (readonly RefineEvery[])[];

/** What densities are chosen by. */
export interface DensityPlan extends StageLossPlan {
  /** Whether somebody asked for them: then only a lack of room leaves them uniform, else all {@linkcode whyLeftOut}. */
  readonly isAsked: boolean;
  /** The quantizer of a density, which says what bits it takes. */
  readonly quantizerOf: (refineEvery: RefineEvery) => Quantizer;
}

/** What they are chosen for. */
export interface DensityRequest extends DensityPlan {
  /** Settings of an interrupted run, whose densities are gone on with. */
  readonly interrupted: RunSettings | undefined;
  /** How codes are found. */
  readonly method: QuantizeMethod;
  readonly onDensities?: (chosen: StageDensities | string) => void;
}

/** Densities of least loss: those of an interrupted run, else measured; undefined where they can't differ. */
export async function densitiesFor(
  device: QuantizingDevice,
  checkpoint: Checkpoint,
  request: DensityRequest,
): Promise<StageDensities | undefined> {
  const { interrupted, method, onDensities, onProgress } = request;
  // The share is that of quantizing, which is to come.
  const plan = { ...request, ...(onProgress && { onProgress: (_: number, step: string) => onProgress(0, step) }) };
  const chosen = asStageDensities(interrupted?.refine, checkpoint.config.layers) ??
    (method === "search" ? "search has no text" : await chooseDensities(device, checkpoint, plan));
  onDensities?.(chosen);
  return typeof chosen === "string" ? undefined : chosen;
}

/**
 * Measures what each stage loses and shares the budget's bits out by that.
 *
 * @returns why densities can't differ, where they can't
 */
export async function chooseDensities(
  { measureLosses }: QuantizingDevice,
  checkpoint: Checkpoint,
  plan: DensityPlan,
): Promise<StageDensities | string> {
  if (!measureLosses) return "what layers lose is measured on a GPU alone";
  const losses = await measureLosses(checkpoint, plan).catch((error) => {
    if (plan.signal?.aborted || (plan.isAsked && !(error instanceof OutOfMemoryError))) throw error;
    return whyLeftOut(error);
  });
  if (typeof losses === "string") return losses;
  return shareBits(checkpoint.config, losses, plan) ??
    `even without refined groups the layers take more than ${BUDGET_BITS} bits a weight`;
}

/** Densities of least loss; those of stages with nothing to quantize don't matter. */
function shareBits(
  config: ModelConfig,
  losses: StageLosses,
  { isQuantized, quantizerOf }: DensityPlan,
): StageDensities | undefined {
  const units: (DensityUnit & { readonly layer: number; readonly stage: number })[] = [];
  const quantizers = REFINE_EVERY.map(quantizerOf);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  for (const [layer, found] of losses.entries()) {
    for (const [stage, loss] of found.entries()) {
      if (loss === undefined) continue;
      const kinds = STAGES[stage].linears.filter((kind) => isQuantized(layer, kind));
      const shapes = kinds.map((kind) => linearShape(config, kind));
      const weights = sum(shapes.map(([rows, channels]) => rows * channels));
      const bits = quantizers.map((quantizer) =>
        sum(shapes.map(([rows, channels]) => totalBits(quantizedBits(rows, channels, quantizer))))
      );
      units.push({ layer, stage, loss, weights, bits });
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
