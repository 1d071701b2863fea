// Where a run's model is quantized and scored; the CPU's workers do it in memory, with the model as a whole.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type Quantizer, storedBytes, type StoredTensor } from "../../quant/quantize.ts";
import { createCpuScorer, type Scorer } from "../../model/evaluate/scorer.ts";
import type { LinearKind } from "../../model/llama/layer.ts";
import type { Model } from "../../model/llama/llama.ts";
import { type Calibrator, createCalibrator, createFixedCalibrator } from "../../model/quantize/calibrator.ts";
import { startOnCpu } from "../../model/quantize/cpu_device.ts";
import type { QuantizeOptions } from "../../model/quantize_options.ts";
import { quantizeInMemory } from "../../model/quantize/quantize_layers.ts";
import type { LayerSource } from "../../model/quantize/quantizing_device.ts";
import type { CpuPool } from "../../model/workers/cpu_pool.ts";

/**
 * What calibrates a method: nothing; inputs of the unquantized model, equal for all methods; those of the model as it is
 * being quantized, for random tokens or, with targets corrected, for the text. Or, whatever the quantizers and on a GPU
 * alone, all that `quantize` does by default or when it is asked so, or the packed file of a path, which is told apart
 * by its sha256.
 */
export type Inputs =
  | "none"
  | "unquantized"
  | "random"
  | "corrected"
  | "default"
  | { readonly asked: Pick<QuantizeOptions, "method" | "calibration"> }
  | { readonly path: string; readonly sha256: string };

/** How a model is quantized. */
export interface PlacePlan {
  readonly quantizerOf: (kind: LinearKind) => Quantizer;
  readonly inputs: Inputs;
  /** The calibration text, or the random tokens. */
  readonly windows: readonly Uint32Array[];
  readonly onProgress: (share: number, step: string) => void;
}

/** A place for one model. Dispose it to free what it holds of it. */
export interface ModelPlace extends Disposable {
  readonly gpu?: Gpu;
  /** Whether that is a GPU and not a software adapter. */
  readonly isRealGpu: boolean;
  /** Scores what was given to it last; it keeps the unquantized model's predictions. */
  readonly scorer: Scorer;
  /** Layers of the unquantized model, in order. */
  layers(): Promise<LayerSource>;
  scoreUnquantized(): Promise<void>;
  /** Quantizes the model and gives what was stored, decoded, to the scorer; returns bits a weight. */
  quantize(plan: PlacePlan): Promise<number>;
}

/** The CPU; inputs of the unquantized model are measured once and kept, all layers' Hessians, which is for small models. */
export function cpuPlace(pool: CpuPool, loadModel: () => Promise<Model>): ModelPlace {
  const scorer = createCpuScorer(pool);
  let fixed: { readonly windows: PlacePlan["windows"]; readonly calibrator: Promise<Calibrator> } | undefined;
  const calibratorOf = async (model: Model, { inputs, windows, onProgress }: PlacePlan) => {
    const start = (correctTarget: boolean) =>
      createCalibrator(pool, model.config, { embedding: model.embedding, windows, correctTarget });
    if (inputs === "none") return undefined;
    if (inputs === "default" || typeof inputs === "object") {
      throw new TypeError(`inputs are ${JSON.stringify(inputs)}, which need a GPU, must be others on the CPU`);
    }
    if (inputs !== "unquantized") return start(inputs === "corrected");
    if (fixed?.windows !== windows) {
      onProgress(0, "measuring the unquantized model's inputs");
      fixed = { windows, calibrator: createFixedCalibrator(start(false), model.layers) };
    }
    return await fixed.calibrator;
  };
  return {
    isRealGpu: false,
    scorer,
    async layers() {
      const { config, layers } = await loadModel();
      return { config, readLayer: (index) => Promise.resolve(layers[index]) };
    },
    scoreUnquantized: async () => await scorer.setModel(await loadModel()),
    async quantize(plan) {
      const model = await loadModel();
      using run = startOnCpu(pool, await calibratorOf(model, plan));
      const { quantizerOf, onProgress } = plan;
      const quantized = await quantizeInMemory(run, model, {
        quantizerOf: (_layer, kind) => quantizerOf(kind),
        onProgress,
      });
      await scorer.setModel(quantized.model);
      const size = addSizes({ bytes: 0, weights: 0 }, quantized.tensors.values());
      return (8 * size.bytes) / size.weights;
    },
    [Symbol.dispose]() {},
  };
}

/** Of stored tensors. */
export interface Sizes {
  bytes: number;
  weights: number;
}

export function addSizes(size: Sizes, tensors: Iterable<StoredTensor>): Sizes {
  for (const stored of tensors) {
    size.bytes += storedBytes(stored);
    size.weights += stored.tensor.rows * stored.tensor.channels;
  }
  return size;
}
