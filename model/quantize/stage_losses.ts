// What a model loses where one stage of one layer alone is quantized, measured on the device.
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { toF16Matrix } from "../../kernels/matrix/elementwise.ts";
import { buffersOf } from "../../kernels/matrix/slabs.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { type DeviceFactor, factorize } from "../../kernels/quantize/factorize.ts";
import { quantizeMatrixOnDevice } from "../../kernels/quantize/quantize_matrix.ts";
import { FEEDBACK, SETTINGS } from "../../quant/recipe.ts";
import { type JoinedLinear, uploadWeights } from "../engine/engine_weights.ts";
import { checkpointSource } from "../engine/weight_source.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type LinearKind, linearShape, linearWeights, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { placeParts } from "../../kernels/matrix/slabs.ts";
import { createLossMeter } from "./loss_meter.ts";
import type { LayerSource, StageLosses, StageLossPlan } from "./quantizing_device.ts";

/** Windows in which predictions are compared; half as many of a model with more weights than {@linkcode LARGE_MODEL}. */
const LOSS_WINDOWS = 16;
const LARGE_MODEL = 1e9;

/**
 * Measures every stage of every layer: KL from the unquantized model's predictions, in nats a token, with the stage's
 * matrices at the method's density under error feedback, on the inputs that the unquantized model gives them.
 *
 * @throws {OutOfMemoryError} when the device has no room for the whole model in 16 bits
 */
export async function measureStageLosses(
  gpu: Gpu,
  checkpoint: Checkpoint,
  source: LayerSource,
  { windows, isQuantized, onProgress, signal }: StageLossPlan,
): Promise<StageLosses> {
  const { config } = checkpoint;
  using scope = createBufferScope(gpu);
  onProgress?.(0, "the model in 16 bits");
  using weights = await uploadWeights(gpu, checkpointSource(checkpoint));
  const lossWindows = linearWeights(config) > LARGE_MODEL ? LOSS_WINDOWS / 2 : LOSS_WINDOWS;
  const meter = await createLossMeter(gpu, scope, weights, { windows, lossWindows });
  const losses: (number | undefined)[][] = [];
  for (let index = 0; index < config.layers; index++) {
    signal?.throwIfAborted();
    onProgress?.(index / config.layers, `what layer ${index} loses`);
    const layer = await source.readLayer(index);
    using layerScope = createBufferScope(gpu);
    const kinds = STAGES.map(({ linears }) => linears.filter((kind) => isQuantized(index, kind)));
    const grams = await sumStages(gpu, layerScope, config, kinds);
    await meter.advance(grams);
    const found: (number | undefined)[] = [];
    for (const [stage, gram] of grams.entries()) {
      using stageScope = createBufferScope(gpu);
      const factor = gram && await factorize(gpu, stageScope, gram, FEEDBACK);
      const matrices = factor && await quantizeStage(gpu, stageScope, config, layer, stage, kinds[stage], factor);
      source.freeStage?.(stage);
      found.push(matrices && await meter.lossOf(stage, matrices));
    }
    losses.push(found);
  }
  return losses;
}

/** Sums for the inputs of a layer's stages, where these have something to quantize. */
async function sumStages(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  kinds: readonly (readonly LinearKind[])[],
): Promise<(SquareMatrix | undefined)[]> {
  const grams: (SquareMatrix | undefined)[] = [];
  for (const [kind] of kinds) {
    grams.push(kind && await createSquareMatrix(gpu, scope, "hessian", linearShape(config, kind)[1]));
  }
  return grams;
}

/** The matrices of a stage, quantized where they are to be, else in f16; side by side in one output. */
async function quantizeStage(
  gpu: Gpu,
  scope: BufferScope,
  config: ModelConfig,
  layer: Layer,
  stage: number,
  quantized: readonly LinearKind[],
  factor: DeviceFactor,
): Promise<JoinedLinear> {
  const matrices: WeightMatrix[] = [];
  for (const kind of STAGES[stage].linears) {
    const shape = linearShape(config, kind);
    const weights = layer.linears[kind].weights as Float32Array<ArrayBuffer>;
    const matrix = quantized.includes(kind)
      ? await quantizeMatrixOnDevice(gpu, shape, weights, SETTINGS, { factor })
      : await toF16Matrix(gpu, shape, weights);
    buffersOf(matrix).forEach(scope.own);
    matrices.push(matrix);
  }
  return placeParts(matrices);
}
