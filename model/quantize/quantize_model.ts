/**
 * Quantizing a model layer by layer; one layer is in memory at a time.
 *
 * @module
 */
import { type Feedback, prepareFeedback } from "../../quant/error_feedback.ts";
import {
  dequantizeStored,
  independentParts,
  joinStored,
  type Quantizer,
  type StoredTensor,
} from "../../quant/quantize.ts";
import type { Calibrator, LayerPair, TotalSums } from "./calibrator.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { QuantizePool, QuantizeTask } from "./quantize_tasks.ts";
import { type LinearKind, linearName, STAGES } from "../llama/layer.ts";
import type { Layer, Model } from "../llama/llama.ts";
import { moveToShared, shareDeep } from "../host/shared.ts";

/** Tiles of a matrix that one task quantizes: 128 rows. */
const PART_TILES = 8;

/** Where the layers of a model come from. */
export interface LayerSource {
  /** Configuration of the model. */
  readonly config: ModelConfig;
  /** Reads a layer. Its memory may be used again once another layer is asked for. */
  readLayer(index: number): Promise<Layer>;
}

/** Stored matrices of a layer; a kind that is left out stays as it is. */
export type StoredLayer = ReadonlyMap<LinearKind, StoredTensor>;

/** How a model is quantized. */
export interface QuantizePlan {
  /** The quantizer of a matrix; undefined leaves it as it is. */
  readonly quantizerOf: (layer: number, kind: LinearKind) => Quantizer | undefined;
  /** The calibration text on its way through the model; needed by quantizers with error feedback. */
  readonly calibrator?: Calibrator;
  /** Told of the share done and of what is being done. */
  readonly onProgress?: (share: number, step: string) => void;
  /** Takes a finished layer: what is stored of it, and the layer before and after. */
  readonly onLayer: (stored: StoredLayer, pair: LayerPair) => Promise<void>;
  /** Returns a layer that an earlier run finished. */
  readonly finishedLayer?: (index: number) => Promise<StoredLayer | undefined>;
}

/**
 * Quantizes the linear layers of a model. With error feedback, a matrix is quantized for the inputs that its calibrator
 * measures with everything before it already quantized.
 *
 * @throws {TypeError} when a quantizer with error feedback gets no calibrator
 */
export async function quantizeLayers(pool: QuantizePool, source: LayerSource, plan: QuantizePlan): Promise<void> {
  const { config } = source;
  const { calibrator, onProgress = () => {} } = plan;
  for (let index = 0; index < config.layers; index++) {
    const original = shareDeep(await source.readLayer(index));
    const finished = await plan.finishedLayer?.(index);
    if (finished) {
      onProgress((index + 1) / config.layers, `layer ${index} was finished before`);
      const quantized = decodeLayer(original, finished);
      await calibrator?.skipLayer({ index, original, quantized });
      await plan.onLayer(finished, { index, original, quantized });
      continue;
    }
    const stored = new Map<LinearKind, StoredTensor>();
    let quantized = original;
    for (const [stage, { linears: kinds }] of STAGES.entries()) {
      onProgress((index + stage / STAGES.length) / config.layers, linearName(index, kinds[0]));
      const sums = await calibrator?.sumStage({ index, original, quantized }, stage);
      const done = await quantizeStage(pool, original, kinds, (kind) => plan.quantizerOf(index, kind), sums);
      for (const [kind, tensor] of done) stored.set(kind, tensor);
      quantized = decodeLayer(quantized, done);
    }
    await calibrator?.finishLayer({ index, original, quantized });
    await plan.onLayer(stored, { index, original, quantized });
  }
}

/** Quantizes the matrices of a stage, in parts that the workers share. */
async function quantizeStage(
  pool: QuantizePool,
  { linears }: Layer,
  kinds: readonly LinearKind[],
  quantizerOf: (kind: LinearKind) => Quantizer | undefined,
  sums: TotalSums | undefined,
): Promise<StoredLayer> {
  const feedbacks = new Map<string, Feedback>();
  const tasks = kinds.flatMap((kind) => {
    const quantizer = quantizerOf(kind);
    if (!quantizer) return [];
    const task = { linear: linears[kind], quantizer, ...inputOf(quantizer, sums, feedbacks) };
    return independentParts(task.linear.rows, quantizer, PART_TILES).map((tiles) => ({
      kind,
      task: { ...task, tiles },
    }));
  });
  const parts = await pool.map("quantize", tasks.map(({ task }) => task));
  const quantized = kinds.filter((kind) => tasks.some((task) => task.kind === kind));
  return new Map(quantized.map((kind) => [kind, joinStored(parts.filter((_, i) => tasks[i].kind === kind))]));
}

/** What a quantizer needs to know of its input; feedback with the same settings is prepared once a stage. */
function inputOf(
  { feedback: settings, correctTarget }: Quantizer,
  sums: TotalSums | undefined,
  feedbacks: Map<string, Feedback>,
): Pick<QuantizeTask, "feedback" | "drift" | "lack"> {
  if (!settings) return {};
  if (!sums) throw new TypeError("the quantizer has error feedback but there is no calibrator");
  const key = JSON.stringify(settings);
  const feedback = feedbacks.get(key) ?? shareFeedback(prepareFeedback(sums.gram, settings));
  feedbacks.set(key, feedback);
  if (!correctTarget || !sums.drift) return { feedback };
  return { feedback, drift: sums.drift, ...(sums.lack && { lack: sums.lack }) };
}

function shareFeedback(feedback: Feedback): Feedback {
  const shared = new Float64Array(new SharedArrayBuffer(feedback.coefficients.byteLength));
  shared.set(feedback.coefficients);
  return { ...feedback, coefficients: shared };
}

/** A layer with some matrices replaced by their decoded ones. */
function decodeLayer(layer: Layer, stored: StoredLayer): Layer {
  const linears = { ...layer.linears };
  for (const [kind, tensor] of stored) {
    linears[kind] = { ...linears[kind], weights: moveToShared(dequantizeStored(tensor)) };
  }
  return { ...layer, linears };
}

/** A quantized model in memory. */
export interface QuantizedModel {
  /** The model with decoded weights. */
  readonly model: Model;
  /** Stored tensors by name ({@linkcode linearName}). */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** Quantizes a model that is in memory. */
export async function quantizeModel(
  pool: QuantizePool,
  model: Model,
  plan: Pick<QuantizePlan, "quantizerOf" | "calibrator" | "onProgress">,
): Promise<QuantizedModel> {
  const tensors = new Map<string, StoredTensor>();
  const layers: Layer[] = [];
  const source = { ...model, readLayer: (index: number) => Promise.resolve(model.layers[index]) };
  await quantizeLayers(pool, source, {
    ...plan,
    onLayer(stored, { index, quantized }) {
      for (const [kind, tensor] of stored) tensors.set(linearName(index, kind), tensor);
      layers.push(quantized);
      return Promise.resolve();
    },
  });
  return { model: { ...model, layers }, tensors };
}
