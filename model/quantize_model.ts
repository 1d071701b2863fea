/**
 * Quantizing a model layer by layer.
 *
 * @module
 */
import { type Feedback, prepareFeedback } from "../quant/error_feedback.ts";
import { dequantizeStored, type Quantizer, type StoredTensor } from "../quant/quantize.ts";
import { type CalibrationPart, STAGES } from "./calibration.ts";
import { embed } from "./forward.ts";
import { type Layer, type LinearKind, linearName, type Model } from "./llama.ts";
import { shareArray, shareModel } from "./shared.ts";
import type { WorkerPool } from "./worker_pool.ts";

/** Windows that are calibrated together; fixed, so that sums don't depend on the number of workers. */
const PART_WINDOWS = 8;

/** A quantized model. */
export interface QuantizedModel {
  /** The model with decoded weights. */
  readonly model: Model;
  /** Stored tensors by name ({@linkcode linearName}). */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** What quantizing a model is given besides the model. */
export interface QuantizeOptions {
  readonly quantizer: Quantizer;
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
  { quantizer, calibration, onProgress = () => {} }: QuantizeOptions,
): Promise<QuantizedModel> {
  const model = shareModel(original);
  const calibrator = quantizer.feedback ? startCalibration(pool, model, calibration) : undefined;
  const tensors = new Map<string, StoredTensor>();
  const layers: Layer[] = [];
  for (const [index, originalLayer] of model.layers.entries()) {
    let layer = originalLayer;
    for (const [stage, kinds] of STAGES.entries()) {
      onProgress((index + stage / STAGES.length) / model.layers.length, linearName(index, kinds[0]));
      const hessian = await calibrator?.hessian(layer, stage);
      const feedback = hessian && quantizer.feedback && shareFeedback(prepareFeedback(hessian, quantizer.feedback));
      const stored = await pool.map(
        "quantize",
        kinds.map((kind) => ({ linear: originalLayer.linears[kind], quantizer, ...(feedback && { feedback }) })),
      );
      kinds.forEach((kind, i) => tensors.set(linearName(index, kind), stored[i]));
      layer = withWeights(layer, kinds, stored);
    }
    await calibrator?.finish(layer);
    layers.push(layer);
  }
  return { model: { ...model, layers }, tensors };
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

/** Puts the calibration windows on their way through the model. */
function startCalibration(pool: WorkerPool, model: Model, windows: readonly Uint32Array[]) {
  if (windows.length === 0) throw new RangeError("calibration has 0 windows, must have at least 1");
  const { config } = model;
  const widest = Math.max(config.hidden, config.intermediate, config.heads * config.headSize);
  const shared = (length: number) => new Float32Array(new SharedArrayBuffer(length * 4));
  const parts = Array.from({ length: Math.ceil(windows.length / PART_WINDOWS) }, (_, i) => {
    const mine = windows.slice(i * PART_WINDOWS, (i + 1) * PART_WINDOWS);
    const lengths = mine.map(({ length }) => length);
    const tokens = lengths.reduce((sum, length) => sum + length, 0);
    const hidden = shareArray(embed(model, mine.map((tokens) => ({ tokens }))));
    return { lengths, hidden, input: shared(tokens * widest) };
  });
  const payloads = (layer: Layer, stage: number): CalibrationPart[] =>
    parts.map((part) => ({ config, layer, stage, ...part }));
  return {
    /** Sum of x xᵀ over the inputs x of a stage's matrices, f64. */
    async hessian(layer: Layer, stage: number): Promise<Float64Array> {
      const sums = await pool.map("calibrateStage", payloads(layer, stage));
      const total = new Float64Array(sums[0].length);
      for (const sum of sums) for (let i = 0; i < total.length; i++) total[i] += sum[i];
      return total;
    },
    /** Takes the residual stream to the next layer. */
    async finish(layer: Layer): Promise<void> {
      await pool.map("finishLayer", payloads(layer, STAGES.length));
    },
  };
}
