/**
 * Quantizing a model layer by layer on the device (quantize_model.ts is the same on the CPU). The host holds one layer,
 * the device the matrices of one layer, the sums of one stage and the calibration text.
 *
 * @module
 */
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { halveWeights } from "../../kernels/matrix/elementwise.ts";
import { type DeviceFactor, factorize } from "../../kernels/quantize/factorize.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { buffersOf } from "../../kernels/matrix/slabs.ts";
import { type PackedMatrix, readPackedMatrix, uploadPackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import { type DeviceKnowledge, orderDrift, quantizeMatrixOnDevice } from "../../kernels/quantize/quantize_matrix.ts";
import { BLOCK_GROUPS, blocksPerRow, type RefineEvery } from "../../quant/format.ts";
import { MAX_F16 } from "../../quant/float16.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  createDeviceCalibrator,
  type DeviceCalibrator,
  type DeviceLayerPair,
  type DeviceSums,
} from "./device_calibrator.ts";
import { type DeviceLayer, uploadVectors } from "./device_stream.ts";
import { type LinearKind, linearName, linearShape, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import type { LayerSource, StoredLayer } from "./quantize_model.ts";

/** The calibration text of a run on the device. */
export interface DeviceCalibration {
  /** f32 [vocabulary, hidden]. */
  readonly embedding: Float32Array;
  /** The windows. */
  readonly windows: readonly Uint32Array[];
  /** Whether targets are corrected, which takes the text through the unquantized model too. */
  readonly correctTarget: boolean;
}

/** How a model is quantized on the device. */
export interface DevicePlan {
  /** The quantizer of a matrix; undefined leaves it as it is. */
  readonly quantizerOf: (layer: number, kind: LinearKind) => Quantizer | undefined;
  /** Needed by quantizers with error feedback. */
  readonly calibration?: DeviceCalibration;
  /** Told of the share done and of what is being done. */
  readonly onProgress?: (share: number, step: string) => void;
  /** Takes a finished layer. */
  readonly onLayer: (stored: StoredLayer, pair: { readonly index: number; readonly original: Layer }) => Promise<void>;
  /** Returns a layer that an earlier run finished. */
  readonly finishedLayer?: (index: number) => Promise<StoredLayer | undefined>;
}

/**
 * Quantizes the linear layers of a model on the device.
 *
 * @throws {TypeError} when a quantizer with error feedback gets no calibration text
 * @throws {RangeError} for what {@linkcode whyNotOnDevice} names, or a scale beyond f16
 */
export async function quantizeLayersOnDevice(gpu: Gpu, source: LayerSource, plan: DevicePlan): Promise<void> {
  using scope = createBufferScope(gpu);
  const { config } = source;
  const { calibration } = plan;
  const calibrator = calibration && await createDeviceCalibrator(
    gpu,
    scope,
    config,
    calibration.embedding,
    calibration.windows,
    calibration.correctTarget,
  );
  for (let index = 0; index < config.layers; index++) {
    const original = await source.readLayer(index);
    const finished = await plan.finishedLayer?.(index);
    const stored = await quantizeLayer(gpu, { config, plan, index, original, finished, calibrator });
    await plan.onLayer(stored, { index, original });
  }
}

/** A layer whose quantized matrices are being made. */
type LayerModels = DeviceLayerPair & { readonly quantized: DeviceLayer };

interface LayerTask {
  readonly config: ModelConfig;
  readonly plan: DevicePlan;
  readonly index: number;
  readonly original: Layer;
  readonly finished: StoredLayer | undefined;
  readonly calibrator: DeviceCalibrator | undefined;
}

async function quantizeLayer(gpu: Gpu, task: LayerTask): Promise<StoredLayer> {
  const { config, plan, index, original, finished, calibrator } = task;
  const { onProgress = () => {} } = plan;
  const shareAt = (stage: number, share: number) => (index + (stage + share) / STAGES.length) / config.layers;
  if (finished && !calibrator) {
    onProgress(shareAt(STAGES.length, 0), `layer ${index} was finished before`);
    return finished;
  }
  using scope = createBufferScope(gpu);
  const vectors = await uploadVectors(scope, original);
  const newLayer = (): DeviceLayer => ({ vectors, matrices: new Map() });
  const pair = { quantized: newLayer(), ...(plan.calibration?.correctTarget && { original: newLayer() }) };
  const stored = new Map(finished);
  for (const [stage, { linears: kinds }] of STAGES.entries()) {
    const step = linearName(index, kinds[0]);
    onProgress(shareAt(stage, 0), step);
    using stageScope = createBufferScope(gpu);
    await advanceText(gpu, scope, task, pair, stage);
    const sums = await sumInputs(gpu, scope, stageScope, task, pair, stage, (share) => {
      onProgress(shareAt(stage, 0.9 * share), step);
    });
    const known = await prepareKnowledge(gpu, stageScope, task, kinds, sums);
    for (const kind of kinds) {
      const tensor = await quantizeKind(gpu, scope, task, kind, pair, known.get(kind));
      if (tensor) stored.set(kind, { kind: "packed", tensor });
    }
  }
  await advanceText(gpu, scope, task, pair, STAGES.length);
  return stored;
}

/** Takes the text through the matrices of the stage before, which are on the device only for that. */
async function advanceText(gpu: Gpu, scope: BufferScope, task: LayerTask, pair: LayerModels, stage: number) {
  const isAhead = !task.finished && STAGES[stage - 1]?.joinsResidual;
  await passMatrices(gpu, scope, task, isAhead ? { quantized: pair.quantized } : pair, stage);
}

async function passMatrices(gpu: Gpu, scope: BufferScope, task: LayerTask, pair: DeviceLayerPair, stage: number) {
  const kinds = STAGES[stage - 1]?.linears;
  if (!task.calibrator || !kinds) return;
  for (const kind of kinds) await uploadHalf(gpu, scope, task, kind, pair);
  await task.calibrator.advance(pair, stage);
  for (const kind of kinds) freeMatrices(scope, pair, kind);
}

/** Sums a stage's inputs; the original text goes ahead where its matrix is needed for the sums. */
async function sumInputs(
  gpu: Gpu,
  scope: BufferScope,
  sumsScope: BufferScope,
  task: LayerTask,
  pair: LayerModels,
  stage: number,
  onShare: (share: number) => void,
): Promise<DeviceSums | undefined> {
  const { calibrator, finished } = task;
  if (!calibrator || finished) return undefined;
  if (!pair.original || !STAGES[stage].joinsResidual) return await calibrator.sumStage(pair, stage, sumsScope, onShare);
  const original = { original: pair.original };
  for (const kind of STAGES[stage].linears) await uploadHalf(gpu, scope, task, kind, original);
  const sums = await calibrator.sumStage(pair, stage, sumsScope, onShare);
  await passMatrices(gpu, scope, task, original, stage + 1);
  return sums;
}

/**
 * What the quantizer of each kind needs to know; the stage's Hessian is factored once, in its place.
 *
 * @throws {TypeError} when quantizers of a stage differ in their feedback settings
 */
async function prepareKnowledge(
  gpu: Gpu,
  scope: BufferScope,
  { plan, index, finished }: LayerTask,
  kinds: readonly LinearKind[],
  sums: DeviceSums | undefined,
): Promise<Map<LinearKind, DeviceKnowledge>> {
  const known = new Map<LinearKind, DeviceKnowledge>();
  if (finished) return known;
  let prepared: { factor: DeviceFactor; settings: string } | undefined;
  for (const kind of kinds) {
    const quantizer = plan.quantizerOf(index, kind);
    if (!quantizer?.feedback) continue;
    if (!sums) throw new TypeError("the quantizer has error feedback but there is no calibration text");
    const settings = JSON.stringify(quantizer.feedback);
    if (prepared && prepared.settings !== settings) {
      throw new TypeError(`${kind} has feedback ${settings}, must be ${prepared.settings} as for the same input`);
    }
    const { gram, ...corrections } = sums;
    if (!prepared) {
      prepared = { factor: await factorize(gpu, scope, gram, quantizer.feedback), settings };
      if (sums.drift) await orderDrift(gpu, scope, prepared.factor, sums.drift);
    }
    known.set(kind, { factor: prepared.factor, ...(quantizer.correctTarget && corrections) });
  }
  return known;
}

/** Puts a matrix as it was into the models of a pair where the text goes through it and it isn't yet, as f16. */
async function uploadHalf(
  gpu: Gpu,
  scope: BufferScope,
  { config, plan, index, original, finished }: LayerTask,
  kind: LinearKind,
  pair: DeviceLayerPair,
): Promise<void> {
  const stays = finished ? !finished.has(kind) : plan.quantizerOf(index, kind) === undefined;
  const models = [pair.original, stays ? pair.quantized : undefined]
    .filter((model) => model !== undefined && !model.matrices.has(kind));
  if (models.length === 0) return;
  const weights = original.linears[kind].weights as Float32Array<ArrayBuffer>;
  const matrix = await halveWeights(gpu, linearShape(config, kind), weights);
  buffersOf(matrix).forEach(scope.own);
  for (const model of models) model?.matrices.set(kind, matrix);
}

/** Quantizes a matrix, or takes it as it was finished before, and puts it into the layer where the text goes through it. */
async function quantizeKind(
  gpu: Gpu,
  scope: BufferScope,
  { config, plan, index, original, finished, calibrator }: LayerTask,
  kind: LinearKind,
  pair: LayerModels,
  knowledge: DeviceKnowledge | undefined,
): Promise<PackedTensor | undefined> {
  using matrixScope = createBufferScope(gpu);
  const keep = (matrix: PackedMatrix) => {
    buffersOf(matrix).forEach((calibrator ? scope : matrixScope).own);
    pair.quantized.matrices.set(kind, matrix);
  };
  const before = finished?.get(kind);
  if (before?.kind === "packed") keep(await uploadPackedMatrix(gpu, before.tensor));
  const quantizer = plan.quantizerOf(index, kind);
  if (finished || !quantizer) return undefined;
  const weights = original.linears[kind].weights as Float32Array<ArrayBuffer>;
  const shape = linearShape(config, kind);
  const packed = await quantizeMatrixOnDevice(gpu, shape, weights, refineEveryOf(quantizer), knowledge);
  keep(packed);
  const tensor = await readPackedMatrix(gpu, packed);
  checkScales(linearName(index, kind), tensor);
  return tensor;
}

function refineEveryOf(quantizer: Quantizer): RefineEvery {
  if (quantizer.kind !== "twobit") throw new TypeError(`quantizer is ${quantizer.kind}, must be twobit on the device`);
  return quantizer.settings.refineEvery;
}

function freeMatrices(scope: BufferScope, pair: DeviceLayerPair, kind: LinearKind): void {
  const layers = [pair.quantized, pair.original].filter((layer) => layer !== undefined);
  // A matrix that isn't quantized is the same in both.
  const matrices = new Set(layers.flatMap((layer) => layer.matrices.get(kind) ?? []));
  for (const matrix of matrices) buffersOf(matrix).forEach(scope.free);
  for (const layer of layers) layer.matrices.delete(kind);
}

/** @throws {RangeError} where a second-order scale is beyond f16 */
function checkScales(name: string, { channels, tileScale }: PackedTensor): void {
  const bad = tileScale.findIndex((d) => !Number.isFinite(d));
  if (bad < 0) return;
  const groups = blocksPerRow(channels) * BLOCK_GROUPS;
  throw new RangeError(
    `${name}: group column ${bad % groups} of tile ${
      Math.floor(bad / groups)
    } needs a scale beyond f16, must be at most ${MAX_F16}`,
  );
}
