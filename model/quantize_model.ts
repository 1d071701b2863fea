/**
 * Quantizing a model layer by layer.
 *
 * @module
 */
import { type Feedback, prepareFeedback } from "../quant/error_feedback.ts";
import {
  dequantizeStored,
  independentParts,
  joinStored,
  type Quantizer,
  type StoredTensor,
} from "../quant/quantize.ts";
import { type CalibrationPart, STAGES, type StageSums } from "./calibration.ts";
import { embed } from "./forward.ts";
import { type Layer, type LinearKind, linearName, type Model } from "./llama.ts";
import { shareArray, shareModel } from "./shared.ts";
import type { WorkerPool } from "./worker_pool.ts";

/** Windows that are calibrated together; fixed, so that sums don't depend on the number of workers. */
const PART_WINDOWS = 4;

/** Tiles of a matrix that one task quantizes: 128 rows. */
const PART_TILES = 8;

/** A quantized model. */
export interface QuantizedModel {
  /** The model with decoded weights. */
  readonly model: Model;
  /** Stored tensors by name ({@linkcode linearName}). */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** What quantizing a model is given besides the model. */
export interface QuantizeOptions {
  /** The quantizer of each kind of matrix. */
  readonly quantizerOf: (kind: LinearKind) => Quantizer;
  /** Calibration windows; needed by quantizers with error feedback. */
  readonly calibration: readonly Uint32Array[];
  readonly onProgress?: (share: number, step: string) => void;
}

/**
 * Quantizes every linear layer of a model. With error feedback, the Hessian of a layer's inputs is measured on the
 * calibration text with all earlier layers already quantized.
 *
 * @throws {RangeError} when a quantizer with error feedback gets no calibration text
 */
export async function quantizeModel(
  pool: WorkerPool,
  original: Model,
  { quantizerOf, calibration, onProgress = () => {} }: QuantizeOptions,
): Promise<QuantizedModel> {
  const model = shareModel(original);
  const quantizers = STAGES.flat().map(quantizerOf);
  const calibrator = quantizers.some(({ feedback }) => feedback)
    ? startCalibration(pool, model, calibration, quantizers.some(({ correctTarget }) => correctTarget))
    : undefined;
  const tensors = new Map<string, StoredTensor>();
  const layers: Layer[] = [];
  for (const [index, originalLayer] of model.layers.entries()) {
    let layer = originalLayer;
    for (const [stage, kinds] of STAGES.entries()) {
      onProgress((index + stage / STAGES.length) / model.layers.length, linearName(index, kinds[0]));
      const sums = await calibrator?.sumStage(layer, originalLayer, stage);
      const stored = await quantizeStage(pool, originalLayer, kinds, quantizerOf, sums);
      kinds.forEach((kind, i) => tensors.set(linearName(index, kind), stored[i]));
      layer = withWeights(layer, kinds, stored);
    }
    await calibrator?.finishLayer(layer, originalLayer);
    layers.push(layer);
  }
  return { model: { ...model, layers }, tensors };
}

/** Quantizes the matrices of a stage, in parts that the workers share. */
async function quantizeStage(
  pool: WorkerPool,
  { linears }: Layer,
  kinds: readonly LinearKind[],
  quantizerOf: QuantizeOptions["quantizerOf"],
  sums: TotalSums | undefined,
): Promise<StoredTensor[]> {
  const feedbacks = new Map<string, Feedback>();
  const tasks = kinds.flatMap((kind) => {
    const quantizer = quantizerOf(kind);
    const { feedback: settings, correctTarget } = quantizer;
    if (!settings || !sums) return partsOf(kind, { linear: linears[kind], quantizer });
    const key = JSON.stringify(settings);
    const feedback = feedbacks.get(key) ?? shareFeedback(prepareFeedback(sums.gram, settings));
    feedbacks.set(key, feedback);
    const { drift, lack } = sums;
    return partsOf(kind, {
      linear: linears[kind],
      quantizer,
      feedback,
      ...(correctTarget && drift && { drift }),
      ...(correctTarget && lack && { lack }),
    });
  });
  const parts = await pool.map("quantize", tasks.map(({ task }) => task));
  return kinds.map((kind) => joinStored(parts.filter((_, i) => tasks[i].kind === kind)));
}

type QuantizePayload = Parameters<import("./cpu_worker.ts").CpuTasks["quantize"]>[0];

function partsOf(kind: LinearKind, task: Omit<QuantizePayload, "tiles">) {
  const parts = independentParts(task.linear.rows, task.quantizer, PART_TILES);
  return parts.map((tiles) => ({ kind, task: { ...task, tiles } }));
}

function withWeights(layer: Layer, kinds: readonly LinearKind[], stored: readonly StoredTensor[]): Layer {
  const linears = { ...layer.linears };
  kinds.forEach((kind, i) => {
    linears[kind] = { ...linears[kind], weights: shareArray(dequantizeStored(stored[i])) };
  });
  return { ...layer, linears };
}

function shareFeedback(feedback: Feedback): Feedback {
  const shared = new Float64Array(new SharedArrayBuffer(feedback.coefficients.byteLength));
  shared.set(feedback.coefficients);
  return { ...feedback, coefficients: shared };
}

/** Sums of a stage over all calibration text; f64 where they are factored, else in shared memory for the workers. */
interface TotalSums {
  readonly gram: Float64Array;
  readonly drift: Float32Array | undefined;
  readonly lack: Float32Array | undefined;
}

/** Puts the calibration windows on their way through the model. */
function startCalibration(pool: WorkerPool, model: Model, windows: readonly Uint32Array[], withOriginal: boolean) {
  if (windows.length === 0) throw new RangeError("calibration has 0 windows, must have at least 1");
  const { config } = model;
  const widest = Math.max(config.hidden, config.intermediate, config.heads * config.headSize);
  const parts = Array.from({ length: Math.ceil(windows.length / PART_WINDOWS) }, (_, i) => {
    const mine = windows.slice(i * PART_WINDOWS, (i + 1) * PART_WINDOWS);
    const lengths = mine.map(({ length }) => length);
    const tokens = lengths.reduce((sum, length) => sum + length, 0);
    const stream = () => ({
      hidden: shareArray(embed(model, mine.map((tokens) => ({ tokens })))),
      input: new Float32Array(new SharedArrayBuffer(tokens * widest * 4)),
    });
    return { lengths, quantized: stream(), ...(withOriginal && { original: stream() }) };
  });
  const payloads = (layer: Layer, originalLayer: Layer, stage: number): CalibrationPart[] =>
    parts.map(({ lengths, quantized, original }) => ({
      config,
      stage,
      lengths,
      quantized: { ...quantized, layer },
      ...(original && { original: { ...original, layer: originalLayer } }),
    }));
  return {
    async sumStage(layer: Layer, originalLayer: Layer, stage: number): Promise<TotalSums> {
      const sums = await pool.map("calibrateStage", payloads(layer, originalLayer, stage));
      const total = (key: keyof StageSums) => addUp(sums.flatMap((sum) => sum[key] ?? []));
      const shared = (sum: Float64Array | undefined) => sum && shareArray(Float32Array.from(sum));
      return { gram: total("gram")!, drift: shared(total("drift")), lack: shared(total("lack")) };
    },
    /** Takes the residual streams to the next layer. */
    async finishLayer(layer: Layer, originalLayer: Layer): Promise<void> {
      await pool.map("finishLayer", payloads(layer, originalLayer, STAGES.length));
    },
  };
}

function addUp(arrays: readonly Float32Array[]): Float64Array | undefined {
  if (arrays.length === 0) return undefined;
  const total = new Float64Array(arrays[0].length);
  for (const array of arrays) for (let i = 0; i < total.length; i++) total[i] += array[i];
  return total;
}
