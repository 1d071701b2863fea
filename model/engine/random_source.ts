// Random weights of a published model's shape, for measuring speed and memory without a download.
import { createRandom } from "../../quant/random.ts";
import { randomPacked, repeat } from "../../quant/random_packed.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type LinearKind, linearShape, STAGES } from "../llama/layer.ts";
import type { RefineEvery } from "../../quant/format.ts";
import { SETTINGS } from "../../quant/recipe.ts";
import type { ModelShape } from "../llama/shapes.ts";
import type { HalfMatrix } from "../../kernels/matrix/f16_matrix.ts";
import type { HostMatrix } from "../../kernels/product/weight_format.ts";
import type { WeightSource } from "./weight_source.ts";

export const FORMATS = ["f16", "twobit"] as const;

export type Format = typeof FORMATS[number];

export function isFormat(text: string): text is Format {
  return FORMATS.some((format) => format === text);
}

/** Rows drawn at random; larger matrices repeat them. */
const RANDOM_ROWS = 64;

/** Configuration of a model of this shape. What speed doesn't depend on is as in Llama 2. */
export function configOfShape(shape: ModelShape, context: number): ModelConfig {
  return {
    ...shape,
    architecture: "LlamaForCausalLM",
    context,
    normEpsilon: 1e-5,
    rope: { theta: 10000 },
    attentionBias: false,
    outputBias: false,
    queryKeyNorm: false,
  };
}

/** Densities of the stages of some layers, which the layers of a model take over and over. */
export type DensityPattern = readonly (readonly RefineEvery[])[];

/** One density everywhere, the default's. */
const ONE_DENSITY: DensityPattern = [STAGES.map(() => SETTINGS.refineEvery)];

/** Random weights; all layers are the same but for their densities. */
export function randomSource(
  config: ModelConfig,
  format: Format,
  seed = 1,
  densities: DensityPattern = ONE_DENSITY,
): WeightSource {
  const random = createRandom(seed);
  const half = (rows: number, channels: number): HalfMatrix => {
    // Outputs about as large as inputs, so that 80 layers neither vanish nor overflow.
    const scale = 1 / Math.sqrt(channels);
    const drawn = Float16Array.from({ length: RANDOM_ROWS * channels }, () => random.normal() * scale);
    return { kind: "f16", rows, channels, weights: repeat(drawn, new Float16Array(rows * channels)) };
  };
  const linears = new Map<string, HostMatrix>();
  const linear = (kind: LinearKind, density: RefineEvery): HostMatrix => {
    const [rows, channels] = linearShape(config, kind);
    if (format === "f16") return half(rows, channels);
    return { kind: "packed", tensor: randomPacked(rows, channels, 0, seed, density) };
  };
  return {
    config,
    sameLayers: densities.length === 1,
    linear(layer, kind) {
      const stage = STAGES.findIndex(({ linears }) => linears.includes(kind));
      const density = densities[layer % densities.length][stage];
      const name = `${kind} ${density}`;
      const matrix = linears.get(name) ?? linear(kind, density);
      linears.set(name, matrix);
      return Promise.resolve(matrix);
    },
    half: (_name, rows, channels) => Promise.resolve(half(rows, channels)),
    vector: (name, length) => Promise.resolve(/norm/.test(name) ? new Float32Array(length).fill(1) : undefined),
  };
}
