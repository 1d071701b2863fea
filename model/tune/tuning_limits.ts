// What tuning a model takes of the device.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { CHUNK_CHANNELS } from "../../kernels/matrix/f16_matrix.ts";
import type { ModelConfig } from "../llama/config.ts";
import { LINEAR_KINDS, type LinearKind, linearShape, linearWeights, widestOf } from "../llama/layer.ts";
import { logitStride } from "./divergence_head.ts";
import { largestStage, type PassShape, passShape } from "./pass_buffers.ts";
import type { TuningSettings } from "./tuning_plan.ts";

export interface TuningNeeds {
  readonly settings: TuningSettings;
  /** Whether a matrix is quantized; the others stay in f16. */
  readonly isQuantized: (layer: number, kind: LinearKind) => boolean;
}

/** Bits of a packed weight, and of its share of what goes with a scale, more than which no density takes. */
const WEIGHT_BITS = 5.1;

/** Bytes of the device that tuning holds at once, beside what the unquantized model makes of the windows. */
export function tuningBytes(
  config: ModelConfig,
  { windows, windowTokens }: PassShape,
  isQuantized: TuningNeeds["isQuantized"],
): number {
  const { hidden, heads, keyValueHeads, headSize, intermediate, vocabulary, layers, tiedHead, queryKeyNorm } = config;
  const qkv = (heads + 2 * keyValueHeads) * headSize;
  const weights = linearWeights(config);
  let packed = 0;
  for (const kind of LINEAR_KINDS) {
    const [rows, channels] = linearShape(config, kind);
    for (let layer = 0; layer < layers; layer++) packed += isQuantized(layer, kind) ? rows * channels : 0;
  }
  const perToken = hidden * (layers + 4) + heads * (2 * headSize + 2) + qkv * (queryKeyNorm ? 3 : 2) +
    keyValueHeads * headSize + 4 * intermediate + 3 + hidden / 32;
  const logits = windowTokens * (2 * logitStride(vocabulary) + 2 * hidden);
  const heldOnce = 4 * (windows * windowTokens * perToken + logits + largestStage(config));
  const embeddings = 2 * vocabulary * hidden * (tiedHead ? 1 : 2) + transposedHeadBytes(config);
  return Math.ceil(heldOnce + embeddings + packed * WEIGHT_BITS / 8 + 2 * (weights - packed) + (4 * weights) / layers);
}

/** Bytes of the head in f16 the other way round, each row in whole chunks. */
function transposedHeadBytes({ hidden, vocabulary }: ModelConfig): number {
  return 2 * hidden * Math.ceil(logitStride(vocabulary) / CHUNK_CHANNELS) * CHUNK_CHANNELS;
}

/**
 * Refuses early what would fail late: too few windows, matrices or logits that the device can't bind, and more memory
 * than it has, which is asked for at once and given back.
 *
 * @throws {RangeError} for the first two
 * @throws {OutOfMemoryError} with what is wanted and what is held
 */
export async function checkTuning(
  gpu: Gpu,
  config: ModelConfig,
  windows: readonly Uint32Array[],
  { settings: { batchWindows }, isQuantized }: TuningNeeds,
): Promise<void> {
  const limit = gpu.device.limits.maxStorageBufferBindingSize;
  const shape = passShape(gpu, config, windows.map(({ length }) => length), batchWindows);
  const { windowTokens } = shape;
  for (
    const [what, bytes] of [
      ["the largest matrices of one input", 4 * largestStage(config)],
      ["the transposed head in f16", transposedHeadBytes(config)],
      [`logits of ${windowTokens} tokens`, 4 * windowTokens * logitStride(config.vocabulary)],
      [`activations of ${windowTokens} tokens`, 4 * windowTokens * widestOf(config)],
    ] as const
  ) {
    if (bytes > limit) {
      throw new RangeError(`tuning needs a buffer of ${bytes} bytes for ${what}, the device binds ${limit}`);
    }
  }
  const text = 4 * config.hidden * windows.reduce((sum, { length }) => sum + length, 0);
  await gpu.checkRoom("room for tuning", tuningBytes(config, shape, isQuantized) + text);
}
