// The run's model as the engine takes it, in 16 bits and packed as `quantize` packs by default.
import { join } from "@std/path";
import { linearWeights } from "../../model/llama/layer.ts";
import { hashWeights, type OpenModel, openModel } from "../../model/load.ts";
import { isPacked, type PackedCheckpoint } from "../../model/files/packed_checkpoint.ts";
import type { Format } from "../../model/engine/random_source.ts";
import { checkpointSource, type WeightSource } from "../../model/engine/weight_source.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import type { QuantizeOptions } from "../../model/quantize_options.ts";
import { isImproved, SETTINGS } from "../../quant/recipe.ts";
import type { ExperimentContext } from "../experiment.ts";
import { makeCleared } from "../models/cleared_directory.ts";
import { describeFile } from "../provenance.ts";

/** How random weights are packed, in words. */
export const DEFAULT_PACKING =
  `packed as quantize does by default: one refined group in ${SETTINGS.refineEvery}, no outliers`;

/** Whether the run was given another model than the embedded one, whose layers are too small to be worth timing. */
export async function hasRealModel(context: ExperimentContext): Promise<boolean> {
  return (await context.opened()).name !== "tiny";
}

/** The run's model, tensor by tensor. */
export interface RealWeights {
  readonly name: string;
  /** What was packed, in words. */
  readonly packed: string;
  readonly sources: Readonly<Record<Format, WeightSource>>;
}

/**
 * Lets `use` take the model's weights. Packed are those of the file that the run was given, or of the model itself where
 * that is packed; else of a file that is made for as long as `use` takes.
 */
export async function withRealWeights<T>(
  context: ExperimentContext,
  isRealGpu: boolean,
  use: (weights: RealWeights) => Promise<T>,
): Promise<T> {
  const { name, checkpoint, sha256 } = await context.opened();
  const { config, has, read, tensors } = checkpoint;
  // Without what makes it a packed file, each matrix is decoded when it is asked for.
  const f16 = checkpointSource({ name: checkpoint.name, config, has, read, tensors });
  const usePacked = (opened: OpenModel, how: string) => {
    if (!isPacked(opened)) throw new SyntaxError(`${opened.name} is not packed, must be to be timed as such`);
    const weights = { name: lastPart(name), packed: `${how}: ${describeDensities(opened)}` };
    return use({ ...weights, sources: { f16, twobit: checkpointSource(opened) } });
  };
  if (context.quantizedName !== undefined) {
    using opened = await openModel(context.quantizedName);
    return await usePacked(opened, describeFile(context.quantizedName, await hashWeights(opened)));
  }
  if (isPacked(checkpoint)) return await usePacked(checkpoint, describeFile(name, sha256));
  await using made = await makeCleared(context.directory, "timed_file");
  const path = join(made.path, "packed.safetensors");
  const { how, options } = choosePacking(isRealGpu, linearWeights(config));
  await quantizeModel(checkpoint.name, path, { ...options, seed: context.seed, onProgress: context.progress });
  using opened = await openModel(path);
  return await usePacked(opened, how);
}

/**
 * How the model is packed to be timed: with the layout that `quantize` gives it by default. How well codes and scales are
 * found changes no speed, so no time is spent on it, but densities follow from a text.
 */
function choosePacking(
  isRealGpu: boolean,
  weights: number,
): { readonly how: string; readonly options: QuantizeOptions } {
  if (!isImproved(isRealGpu, weights, "corrected")) {
    return { how: "as quantize does by default, scales searched alone", options: { method: "search" } };
  }
  return {
    how: `as quantize does by default, untuned and with ${PACKING_WINDOWS} windows of the mix alone`,
    options: { tune: false, calibration: { text: "mix", windows: PACKING_WINDOWS } },
  };
}

/** As many as densities are measured on. */
const PACKING_WINDOWS = 16;

/** How many matrices have which density. */
function describeDensities({ packed }: PackedCheckpoint): string {
  const counts = new Map<string, number>();
  for (const { refineEvery } of packed.values()) {
    const name = refineEvery === "none" ? "no refined group" : `one refined group in ${refineEvery}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return Array.from(counts, ([name, count]) => `${name} in ${count} matrices`).join(", ");
}

function lastPart(path: string): string {
  return path.replace(/[/\\]+$/, "").split(/[/\\]/).at(-1)!;
}
