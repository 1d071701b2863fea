// A layer that is being quantized on a GPU, stage by stage.
import { allOrNone, type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { toF16Matrix } from "../../kernels/matrix/elementwise.ts";
import { type PackedMatrix, readPackedMatrix, uploadPackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import { joinRows } from "../../kernels/matrix/join_rows.ts";
import { buffersOf } from "../../kernels/matrix/slabs.ts";
import { readSquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import { factorize, readDiagonal } from "../../kernels/quantize/factorize.ts";
import { type DeviceKnowledge, orderDrift } from "../../kernels/quantize/quantize_matrix.ts";
import type { FeedbackSettings } from "../../quant/error_feedback.ts";
import { MAX_F16 } from "../../quant/float16.ts";
import { groupsPerRow } from "../../quant/format.ts";
import type { StripQuantizer } from "../../quant/baselines/strips.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import { dequantizeStored, type Quantizer, type StoredTensor } from "../../quant/quantize.ts";
import { release } from "../host/release.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { type LinearKind, linearName, linearShape, STAGES } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { type ComingWeights, createComingWeights } from "./coming_weights.ts";
import type { DeviceCalibrator, DeviceLayerPair, DeviceSums } from "./device_calibrator.ts";
import {
  quantizeByWorkers,
  quantizeStripsOnDevice,
  quantizeTwobitOnDevice,
  type StageKnowledge,
} from "./device_quantizers.ts";
import { type DeviceLayer, uploadVectors } from "./device_stream.ts";
import type { QuantizePool } from "./quantize_tasks.ts";
import type { LayerRun, StageJob, StoredLayer } from "./quantizing_device.ts";

interface LayerWork {
  readonly gpu: Gpu;
  readonly pool: QuantizePool | undefined;
  /** Owns the matrices that the text goes through next. */
  readonly matrices: BufferScope;
  readonly config: ModelConfig;
  readonly index: number;
  readonly original: Layer;
  /** The first matrix of a stage on its way to the device, where a text will go through it. */
  readonly coming: ComingWeights;
  readonly text: DeviceCalibrator | undefined;
  /** Whether the text goes through the matrices as they were. */
  readonly keepsInputs: boolean;
  /** The layer in the models that the text goes through. */
  readonly pair: DeviceLayerPair;
}

export function startLayer(given: Omit<LayerWork, "matrices" | "coming" | "pair">): Promise<LayerRun> {
  const { gpu, text, original } = given;
  return allOrNone(gpu, async (scope) => {
    const vectors = text && await uploadVectors(scope, original);
    const newLayer = (): DeviceLayer | undefined => vectors && { vectors, matrices: new Map() };
    const pair = { quantized: newLayer(), original: text?.correctTarget ? newLayer() : undefined };
    const matrices = createBufferScope(gpu);
    const coming = createComingWeights(gpu);
    const work: LayerWork = { ...given, matrices, coming, pair };
    let isOriginalAhead = false;
    let isPassed = false;
    const beginStage = async (stage: number) => {
      if (text && !text.isStill && stage < STAGES.length) {
        await coming.begin(original.linears, STAGES[stage].linears[0]);
      }
    };
    const pass = async (stage: number) => {
      const passed: DeviceLayerPair = isOriginalAhead ? { quantized: pair.quantized } : pair;
      isOriginalAhead = false;
      isPassed = true;
      await uploadStage(work, passed, stage);
      for (const model of [passed.original, passed.quantized]) await joinStage(work, model, stage);
      await beginStage(stage + 1);
      await text?.pass(passed, stage, coming.writePart);
    };
    return {
      async advance(stage) {
        if (stage === 0) return await beginStage(stage);
        if (!isPassed) await pass(stage - 1);
        isPassed = false;
        clearMatrices(work);
      },
      async quantize({ stage, quantizers, feedback, weighsChannels, onHessian }, onShare) {
        using stageScope = createBufferScope(gpu);
        const isMeasured = feedback !== undefined || weighsChannels;
        const sums = isMeasured
          ? await sumInputs(work, stageScope, stage, (share) => {
            coming.writePart();
            onShare(share);
          })
          : undefined;
        // Before a Hessian is factored in its place.
        if (sums) onHessian?.(await readSquareMatrix(gpu, sums.gram));
        const diagonal = weighsChannels && sums ? await readDiagonal(gpu, sums.gram) : undefined;
        isOriginalAhead = sums?.correlation !== undefined;
        const knowledge = feedback && sums && await prepareKnowledge(gpu, stageScope, sums, feedback);
        return await quantizeKinds(work, quantizers, { knowledge, diagonal }, async () => {
          stageScope[Symbol.dispose]();
          await pass(stage);
        });
      },
      async restore(stored) {
        if (!text || work.keepsInputs) return;
        for (const [kind, tensor] of stored) {
          if (tensor.kind !== "twobit") await keepDecoded(work, kind, tensor);
          else keepMatrix(work, kind, await uploadPackedMatrix(gpu, tensor.tensor), matrices);
        }
      },
      [Symbol.dispose]() {
        matrices[Symbol.dispose]();
        coming[Symbol.dispose]();
        scope[Symbol.dispose]();
      },
    };
  });
}

/** Frees a stage's matrices, which are on the device only until the text has gone through them. */
function clearMatrices({ matrices, pair }: LayerWork): void {
  matrices[Symbol.dispose]();
  for (const layer of [pair.quantized, pair.original]) layer?.matrices.clear();
}

async function uploadStage(work: LayerWork, pair: DeviceLayerPair, stage: number): Promise<void> {
  if (!work.text || work.text.isStill) return;
  for (const kind of STAGES[stage].linears) await uploadMissing(work, pair, kind);
}

/** Makes one matrix of those of a stage, where they can be joined; f16 ones that aren't needed any more are freed. */
async function joinStage(
  { gpu, matrices, pair }: LayerWork,
  model: DeviceLayer | undefined,
  stage: number,
): Promise<void> {
  const { linears } = STAGES[stage];
  const parts = linears.flatMap((kind) => model?.matrices.get(kind) ?? []);
  const joined = parts.length > 1 && await joinRows(gpu, parts);
  if (!model || !joined) return;
  buffersOf(joined).forEach(matrices.own);
  model.matrices.clear();
  model.matrices.set(linears[0], joined);
  const needed = [pair.original, pair.quantized].flatMap((model) => [...model?.matrices.values() ?? []]);
  const spent = parts.filter((part) => part.kind === "f16" && !needed.includes(part));
  spent.flatMap(buffersOf).forEach(matrices.free);
}

/** Puts a matrix as it was, in f16, into the models of a pair that don't have it. */
async function uploadMissing(
  { gpu, matrices, config, original, coming }: LayerWork,
  pair: DeviceLayerPair,
  kind: LinearKind,
): Promise<void> {
  const models = [pair.original, pair.quantized].filter((model) => model && !model.matrices.has(kind));
  if (models.length === 0) return;
  const weights = await coming.finish(kind) ?? original.linears[kind].weights as Float32Array<ArrayBuffer>;
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
  const { text, pair, coming } = work;
  const { linears: [kind], joinsResidual } = STAGES[stage];
  const ahead = joinsResidual && pair.original ? { original: pair.original } : undefined;
  if (ahead) {
    await uploadMissing(work, ahead, kind);
    coming[Symbol.dispose]();
  }
  const sums = await text!.sumStage(pair, stage, sumsScope, onShare);
  if (ahead) {
    await text!.pass(ahead, stage);
    clearMatrices(work);
  }
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

/**
 * Quantizes matrices of a stage, reads them back and puts them into the text's way.
 *
 * @param meanwhile runs while they are read back where the device does all alone: they are in the text's way then, and what
 * is known of their input isn't needed any more
 */
async function quantizeKinds(
  work: LayerWork,
  quantizers: StageJob["quantizers"],
  known: StageKnowledge,
  meanwhile: () => Promise<void>,
): Promise<StoredLayer> {
  const { gpu, pool, config, index, coming, original: { linears } } = work;
  using alone = createBufferScope(gpu);
  const stored = new Map<LinearKind, StoredTensor>();
  const onDevice = new Map<LinearKind, PackedMatrix>();
  const strips = new Map<LinearKind, StripQuantizer>();
  const left = new Map<LinearKind, Quantizer>();
  const matrixOf = async (kind: LinearKind) => {
    const weights = linears[kind].weights as Float32Array<ArrayBuffer>;
    return { shape: linearShape(config, kind), weights, placed: await coming.finish(kind) ?? weights };
  };
  for (const [kind, quantizer] of quantizers) {
    if (quantizer.kind === "twobit") {
      const matrix = await quantizeTwobitOnDevice(gpu, await matrixOf(kind), quantizer, known);
      onDevice.set(kind, matrix);
      keepMatrix(work, kind, matrix, alone);
      if (await coming.finish(kind)) {
        await uploadMissing(work, work.pair, kind);
        coming[Symbol.dispose]();
      }
    } else if (quantizer.kind === "strips" && quantizer.feedback && pool) {
      strips.set(kind, quantizer);
    } else {
      left.set(kind, quantizer);
    }
  }
  const going = strips.size + left.size === 0 ? meanwhile() : Promise.resolve();
  going.catch(() => {}); // met once all are read
  try {
    for (const [kind, matrix] of onDevice) {
      const tensor = await readPackedMatrix(gpu, matrix);
      checkFinite(linearName(index, kind), tensor);
      stored.set(kind, { kind: "twobit", tensor });
    }
  } finally {
    await going;
  }
  // Side by side: while workers find the scales of one, the device rounds another to its own.
  const rounded = await Promise.all(
    strips.entries().map(async ([kind, quantizer]): Promise<[LinearKind, StoredTensor]> => [
      kind,
      { kind: "strips", tensor: await quantizeStripsOnDevice(gpu, pool!, await matrixOf(kind), quantizer, known) },
    ]),
  );
  for (const [kind, tensor] of rounded) {
    stored.set(kind, tensor);
    await keepDecoded(work, kind, tensor);
  }
  if (left.size === 0) return stored;
  if (!pool) {
    throw new TypeError(`quantizers are ${[...left.values()].map(({ kind }) => kind)}, must be twobit without workers`);
  }
  for (const [kind, tensor] of await quantizeByWorkers(pool, left, linears, known)) {
    stored.set(kind, tensor);
    await keepDecoded(work, kind, tensor);
  }
  return stored;
}

/** Puts a matrix on the device into the text's way; where it goes through none, the matrix is left to `alone`. */
function keepMatrix(
  { matrices, pair: { quantized }, keepsInputs }: LayerWork,
  kind: LinearKind,
  matrix: WeightMatrix,
  alone: BufferScope,
): void {
  const model = keepsInputs ? undefined : quantized;
  buffersOf(matrix).forEach((model ? matrices : alone).own);
  model?.matrices.set(kind, matrix);
}

/** Puts a stored matrix into the text's way, where there is one, in f16. */
async function keepDecoded(work: LayerWork, kind: LinearKind, stored: StoredTensor): Promise<void> {
  const { gpu, config, matrices, pair, keepsInputs } = work;
  if (!pair.quantized || keepsInputs) return;
  const decoded = dequantizeStored(stored);
  const matrix = await toF16Matrix(gpu, linearShape(config, kind), decoded);
  release(decoded);
  keepMatrix(work, kind, matrix, matrices);
}

/** @throws {RangeError} where a second-order scale or an outlier's residual is beyond f16 */
function checkFinite(name: string, { channels, tileScale, outlierChannel, outlierResidual }: PackedTensor): void {
  const lost = outlierResidual.findIndex((residual) => !Number.isFinite(residual));
  if (lost >= 0) {
    throw new RangeError(
      `${name}: the outlier at channel ${outlierChannel[lost]} needs a residual beyond f16, must be at most ${MAX_F16}`,
    );
  }
  const bad = tileScale.findIndex((d) => !Number.isFinite(d));
  if (bad < 0) return;
  const groups = groupsPerRow(channels);
  throw new RangeError(
    `${name}: group column ${bad % groups} of tile ${
      Math.floor(bad / groups)
    } needs a scale beyond f16, must be at most ${MAX_F16}`,
  );
}
