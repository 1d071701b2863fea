/**
 * The run's model as the engine takes it, in 16 bits and packed as `quantize` packs by default.
 *
 * @module
 */
import { linearName } from "../model/llama/layer.ts";
import { openModel } from "../model/load.ts";
import type { Format } from "../model/engine/random_source.ts";
import { checkpointSource, modelSource, type WeightSource } from "../model/engine/weight_source.ts";
import { startOnCpu } from "../model/quantize/cpu_device.ts";
import { quantizeInMemory } from "../model/quantize/quantize_layers.ts";
import { SETTINGS } from "../quant/recipe.ts";
import type { TwobitSettings } from "../quant/twobit.ts";
import type { ExperimentContext } from "./experiment.ts";

/** What a packed model is made of, in words. */
export function describeSettings({ refineEvery, outliers: { share, groups } }: TwobitSettings): string {
  const refined = refineEvery === "none" ? "no refined groups" : `one refined group in ${refineEvery}`;
  return `${refined}, ${share === 0 ? "no outliers" : `${100 * share} % outliers (${groups})`}`;
}

/** Whether the run was given another model than the embedded one, whose layers are too small to be worth timing. */
export async function hasRealModel(context: ExperimentContext): Promise<boolean> {
  return (await context.model()).name !== "tiny";
}

/**
 * Lets `use` take the model's weights. A packed file is taken as it is; other models are packed here with scales
 * searched alone, since how well the codes were found changes neither layout nor speed.
 */
export async function withRealWeights<T>(
  context: ExperimentContext,
  format: Format,
  use: (source: WeightSource) => Promise<T>,
): Promise<T> {
  const model = await context.sharedModel();
  if (format === "f16") return await use(modelSource(model));
  using checkpoint = await openModel((await context.model()).name);
  if ("packed" in checkpoint) return await use(checkpointSource(checkpoint));
  using run = startOnCpu(context.pool);
  const { tensors } = await quantizeInMemory(run, model, {
    quantizerOf: () => ({ kind: "twobit", settings: SETTINGS }),
  });
  return await use({
    ...modelSource(model),
    linear(layer, kind) {
      const stored = tensors.get(linearName(layer, kind));
      if (stored?.kind !== "twobit") {
        throw new TypeError(`${linearName(layer, kind)} is ${stored?.kind}, must be twobit`);
      }
      return Promise.resolve({ kind: "packed", tensor: stored.tensor });
    },
  });
}
