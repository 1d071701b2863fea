// Quantizing a model: layer by layer, and in a layer stage by stage, each stage for the inputs that calibration text
// has there with everything before it already quantized.
import { dequantizeStored, type Quantizer, type StoredTensor } from "../../quant/quantize.ts";
import type { Hessian } from "../../quant/report.ts";
import { moveToShared } from "../host/shared.ts";
import { measuresInput } from "../../quant/quantizer.ts";
import { type LinearKind, linearName, STAGES } from "../llama/layer.ts";
import type { Layer, Model } from "../llama/llama.ts";
import type { LayerSource, QuantizingRun, StageJob, StoredLayer } from "./quantizing_device.ts";

export interface QuantizePlan {
  /** The quantizer of a matrix; undefined leaves it as it is. */
  readonly quantizerOf: (layer: number, kind: LinearKind) => Quantizer | undefined;
  readonly onProgress?: (share: number, step: string) => void;
  /** Told what is stored of a stage, and the Hessian of its input, where that was measured and is asked for. */
  readonly onStage?: (stored: StoredLayer, layer: LayerBefore, hessian?: Hessian) => void;
  /** Whether it is told Hessians, which a device has to read back. Default: no. */
  readonly tellsHessians?: boolean;
  /** Takes a finished layer: what is stored of it, and the layer as it was, whose matrices the source may have freed. */
  readonly onLayer: (stored: StoredLayer, layer: LayerBefore) => void | Promise<void>;
  /** Returns a layer that an earlier run finished. */
  readonly finishedLayer?: (index: number) => Promise<StoredLayer | undefined>;
  /** Ends the run before the next stage, with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface LayerBefore {
  readonly index: number;
  readonly original: Layer;
}

/**
 * Quantizes the linear layers of a model.
 *
 * @throws {TypeError} when a quantizer with error feedback gets no calibration text, or those of one stage differ in it
 */
export async function quantizeLayers(run: QuantizingRun, source: LayerSource, plan: QuantizePlan): Promise<void> {
  for (let index = 0; index < source.config.layers; index++) {
    plan.signal?.throwIfAborted();
    const original = await source.readLayer(index);
    const stored = await quantizeLayer(run, source, { index, original }, plan);
    await plan.onLayer(stored, { index, original });
  }
}

async function quantizeLayer(
  run: QuantizingRun,
  source: LayerSource,
  before: LayerBefore,
  { quantizerOf, finishedLayer, onProgress, onStage, tellsHessians, signal }: QuantizePlan,
): Promise<StoredLayer> {
  const { index, original } = before;
  const { layers } = source.config;
  const report = (stages: number, step: string) => onProgress?.((index + stages / STAGES.length) / layers, step);
  const finished = await finishedLayer?.(index);
  if (finished) report(STAGES.length, `layer ${index} was finished before`);
  const stored = new Map(finished);
  using layer = await run.startLayer(index, original);
  const advance = async (stage: number) => {
    await layer.advance(stage);
    if (stage > 0) source.freeStage?.(stage - 1);
  };
  for (const [stage, { linears: kinds }] of STAGES.entries()) {
    signal?.throwIfAborted();
    const step = linearName(index, kinds[0]);
    if (!finished) report(stage, step);
    await advance(stage);
    if (finished) {
      const restored = new Map([...finished].filter(([kind]) => kinds.includes(kind)));
      await layer.restore(restored);
      onStage?.(restored, before);
      continue;
    }
    let hessian: Hessian | undefined;
    const job = {
      ...stageJob(stage, (kind) => quantizerOf(index, kind), run.isCalibrated),
      ...(tellsHessians && { onHessian: (found: Hessian) => void (hessian = found) }),
    };
    const made = await layer.quantize(job, (share) => report(stage + 0.9 * share, step));
    for (const [kind, tensor] of made) stored.set(kind, tensor);
    onStage?.(made, before, hessian);
  }
  await advance(STAGES.length);
  return stored;
}

function stageJob(
  stage: number,
  quantizerOf: (kind: LinearKind) => Quantizer | undefined,
  isCalibrated: boolean,
): StageJob {
  const quantizers = new Map<LinearKind, Quantizer>();
  let feedback: StageJob["feedback"];
  for (const kind of STAGES[stage].linears) {
    const quantizer = quantizerOf(kind);
    if (!quantizer) continue;
    quantizers.set(kind, quantizer);
    if (measuresInput(quantizer) && !isCalibrated) {
      throw new TypeError(
        `the quantizer ${
          quantizer.feedback ? "has error feedback" : "weighs channels"
        } but there is no calibration text`,
      );
    }
    if (!quantizer.feedback) continue;
    feedback ??= quantizer.feedback;
    const [wanted, found] = [feedback, quantizer.feedback].map((settings) => JSON.stringify(settings));
    if (found !== wanted) throw new TypeError(`${kind} has feedback ${found}, must be ${wanted} as for the same input`);
  }
  const weighsChannels = quantizers.values().some((quantizer) => quantizer.weighsChannels === true);
  return { stage, quantizers, weighsChannels, ...(feedback && { feedback }) };
}

/** A layer with some matrices replaced by their decoded ones, which lie in memory that workers share. */
export function decodeLayer(layer: Layer, stored: StoredLayer): Layer {
  const linears = { ...layer.linears };
  for (const [kind, tensor] of stored) {
    linears[kind] = { ...linears[kind], weights: moveToShared(dequantizeStored(tensor)) };
  }
  return { ...layer, linears };
}

export interface QuantizedModel {
  readonly model: Model;
  /** Stored tensors by name ({@linkcode linearName}). */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

export async function quantizeInMemory(
  run: QuantizingRun,
  model: Model,
  plan: Pick<QuantizePlan, "quantizerOf" | "onProgress">,
): Promise<QuantizedModel> {
  const tensors = new Map<string, StoredTensor>();
  const layers: Layer[] = [];
  await quantizeLayers(run, { ...model, readLayer: (index) => Promise.resolve(model.layers[index]) }, {
    ...plan,
    onLayer(stored, { index, original }) {
      for (const [kind, tensor] of stored) tensors.set(linearName(index, kind), tensor);
      layers.push(decodeLayer(original, stored));
    },
  });
  return { model: { ...model, layers }, tensors };
}
