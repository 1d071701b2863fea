/**
 * Quantizing on a GPU: the host holds one layer and reads the next, the device holds the matrices of one stage, its sums
 * and the calibration text.
 *
 * @module
 */
import { allOrNone, type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { toF16Matrix } from "../../kernels/matrix/elementwise.ts";
import { type PackedMatrix, readPackedMatrix, uploadPackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import { buffersOf } from "../../kernels/matrix/slabs.ts";
import { readSquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { factorize, readDiagonal } from "../../kernels/quantize/factorize.ts";
import { type DeviceKnowledge, orderDrift, quantizeMatrixOnDevice } from "../../kernels/quantize/quantize_matrix.ts";
import { channelWeightsOf } from "../../quant/channel_weights.ts";
import type { FeedbackSettings } from "../../quant/error_feedback.ts";
import { MAX_F16 } from "../../quant/float16.ts";
import { groupsPerRow } from "../../quant/format.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import type { Quantizer, StoredTensor } from "../../quant/quantize.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type LinearKind, linearName, linearShape, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import {
  createDeviceCalibrator,
  type DeviceCalibrator,
  type DeviceLayerPair,
  type DeviceSums,
} from "./device_calibrator.ts";
import { type DeviceLayer, uploadVectors } from "./device_stream.ts";
import { tuneModel } from "../tune/tune_model.ts";
import { checkTuning } from "../tune/tuning_limits.ts";
import { createLayerReader } from "./layer_reader.ts";
import type { LayerRun, QuantizingDevice } from "./quantizing_device.ts";

/** A GPU as a device, for what {@linkcode whyNotOnDevice} has nothing against. */
export function gpuDevice(gpu: Gpu): QuantizingDevice {
  return {
    openLayers: createLayerReader,
    start: (config, calibration) =>
      allOrNone(gpu, async (scope) => {
        if (calibration?.tuning) await checkTuning(gpu, config, calibration.windows, calibration.tuning);
        const text = calibration && await createDeviceCalibrator(gpu, scope, config, calibration);
        return {
          isCalibrated: text !== undefined,
          startLayer: (index, original) => startLayer(gpu, config, text, { index, original }),
          // deno-lint-ignore require-await -- a missing text rejects the promise
          async tune(source, settings, watch) {
            if (!text) throw new TypeError("there is no calibration text, must be one to tune on");
            return tuneModel(gpu, source, text.finish(), settings, watch);
          },
          [Symbol.dispose]: () => scope[Symbol.dispose](),
        };
      }),
  };
}

/** A layer that is being quantized. */
interface LayerWork {
  readonly gpu: Gpu;
  /** Owns the matrices that the text goes through next. */
  readonly matrices: BufferScope;
  readonly config: ModelConfig;
  readonly index: number;
  readonly original: Layer;
  readonly text: DeviceCalibrator | undefined;
  /** The layer in the models that the text goes through. */
  readonly pair: DeviceLayerPair;
}

function startLayer(
  gpu: Gpu,
  config: ModelConfig,
  text: DeviceCalibrator | undefined,
  { index, original }: Pick<LayerWork, "index" | "original">,
): Promise<LayerRun> {
  return allOrNone(gpu, async (scope) => {
    const vectors = text && await uploadVectors(scope, original);
    const newLayer = (): DeviceLayer | undefined => vectors && { vectors, matrices: new Map() };
    const pair = { quantized: newLayer(), original: text?.correctTarget ? newLayer() : undefined };
    const matrices = createBufferScope(gpu);
    const work: LayerWork = { gpu, matrices, config, index, original, text, pair };
    let isOriginalAhead = false;
    return {
      async advance(stage) {
        if (stage === 0) return;
        await passMatrices(work, isOriginalAhead ? { quantized: pair.quantized } : pair, stage - 1);
        isOriginalAhead = false;
      },
      async quantize({ stage, quantizers, feedback, weighsChannels, onHessian }, onShare) {
        using stageScope = createBufferScope(gpu);
        const isMeasured = feedback !== undefined || weighsChannels;
        const sums = isMeasured ? await sumInputs(work, stageScope, stage, onShare) : undefined;
        // Before a Hessian is factored in its place.
        if (sums) onHessian?.(await readSquareMatrix(gpu, sums.gram));
        const channelWeights = weighsChannels && sums
          ? channelWeightsOf(await readDiagonal(gpu, sums.gram))
          : undefined;
        isOriginalAhead = sums?.correlation !== undefined;
        const knowledge = feedback && sums && await prepareKnowledge(gpu, stageScope, sums, feedback);
        const known = { knowledge, channelWeights };
        const stored = new Map<LinearKind, StoredTensor>();
        for (const [kind, quantizer] of quantizers) {
          stored.set(kind, { kind: "twobit", tensor: await quantizeKind(work, kind, quantizer, known) });
        }
        return stored;
      },
      async restore(stored) {
        if (!text) return;
        for (const [kind, tensor] of stored) {
          if (tensor.kind === "twobit") keep(work, kind, await uploadPackedMatrix(gpu, tensor.tensor));
        }
      },
      [Symbol.dispose]() {
        matrices[Symbol.dispose]();
        scope[Symbol.dispose]();
      },
    };
  });
}

/** Takes the text through a stage's matrices, which are on the device only for that. */
async function passMatrices(work: LayerWork, pair: DeviceLayerPair, stage: number): Promise<void> {
  if (!work.text) return;
  const { linears } = STAGES[stage];
  for (const kind of linears) await uploadMissing(work, pair, kind);
  await work.text.pass(pair, stage);
  work.matrices[Symbol.dispose]();
  for (const layer of [pair.quantized, pair.original]) layer?.matrices.clear();
}

/** Puts a matrix as it was, in f16, into the models of a pair that don't have it. */
async function uploadMissing(
  { gpu, matrices, config, original }: LayerWork,
  pair: DeviceLayerPair,
  kind: LinearKind,
): Promise<void> {
  const models = [pair.original, pair.quantized].filter((model) => model && !model.matrices.has(kind));
  if (models.length === 0) return;
  const weights = original.linears[kind].weights as Float32Array<ArrayBuffer>;
  const matrix = await toF16Matrix(gpu, linearShape(config, kind), weights);
  buffersOf(matrix).forEach(matrices.own);
  for (const model of models) model?.matrices.set(kind, matrix);
}

/**
 * Sums a stage's inputs. Where the sums take the original matrix the original text goes through it right away, so that the
 * matrix is uploaded once and not there beside the quantized one.
 */
async function sumInputs(
  work: LayerWork,
  sumsScope: BufferScope,
  stage: number,
  onShare: (share: number) => void,
): Promise<DeviceSums> {
  const { text, pair } = work;
  const { linears: [kind], joinsResidual } = STAGES[stage];
  const ahead = joinsResidual && pair.original ? { original: pair.original } : undefined;
  if (ahead) await uploadMissing(work, ahead, kind);
  const sums = await text!.sumStage(pair, stage, sumsScope, onShare);
  if (ahead) await passMatrices(work, ahead, stage);
  return sums;
}

/** Factors a stage's Hessian, in its place. */
async function prepareKnowledge(
  gpu: Gpu,
  scope: BufferScope,
  { gram, ...corrections }: DeviceSums,
  feedback: FeedbackSettings,
): Promise<DeviceKnowledge> {
  const factor = await factorize(gpu, scope, gram, feedback);
  if (corrections.drift) await orderDrift(gpu, scope, factor, corrections.drift);
  return { factor, ...corrections };
}

/** What a stage's matrices may know of their input. */
interface StageKnowledge {
  readonly knowledge: DeviceKnowledge | undefined;
  readonly channelWeights: Float64Array | undefined;
}

/** Quantizes a matrix, reads it back and puts it into the text's way. */
async function quantizeKind(
  work: LayerWork,
  kind: LinearKind,
  quantizer: Quantizer,
  { knowledge, channelWeights }: StageKnowledge,
): Promise<PackedTensor> {
  if (quantizer.kind !== "twobit") throw new TypeError(`quantizer is ${quantizer.kind}, must be twobit on the device`);
  const { gpu, config, index, original } = work;
  const { settings: { refineEvery }, feedback, weighsChannels, correctTarget } = quantizer;
  const weights = original.linears[kind].weights as Float32Array<ArrayBuffer>;
  const measured = feedback && knowledge && (correctTarget ? knowledge : { factor: knowledge.factor });
  const known = measured ?? (weighsChannels && channelWeights ? { channelWeights } : undefined);
  const matrix = await quantizeMatrixOnDevice(gpu, linearShape(config, kind), weights, refineEvery, known);
  using alone = createBufferScope(gpu);
  if (work.text) keep(work, kind, matrix);
  else buffersOf(matrix).forEach(alone.own);
  const tensor = await readPackedMatrix(gpu, matrix);
  checkScales(linearName(index, kind), tensor);
  return tensor;
}

/** Puts a matrix into the text's way. */
function keep({ matrices, pair }: LayerWork, kind: LinearKind, matrix: PackedMatrix): void {
  buffersOf(matrix).forEach(matrices.own);
  pair.quantized?.matrices.set(kind, matrix);
}

/** @throws {RangeError} where a second-order scale is beyond f16 */
function checkScales(name: string, { channels, tileScale }: PackedTensor): void {
  const bad = tileScale.findIndex((d) => !Number.isFinite(d));
  if (bad < 0) return;
  const groups = groupsPerRow(channels);
  throw new RangeError(
    `${name}: group column ${bad % groups} of tile ${
      Math.floor(bad / groups)
    } needs a scale beyond f16, must be at most ${MAX_F16}`,
  );
}
