// Where a run's model is quantized and scored: by the CPU's workers, in memory as a whole, or on a GPU, layer by layer.
import { join } from "@std/path";
import type { Gpu } from "../kernels/gpu/gpu.ts";
import { type Quantizer, storedBytes, type StoredTensor } from "../quant/quantize.ts";
import { startUpload, uploadWeights } from "../model/engine/engine_weights.ts";
import { checkpointSource } from "../model/engine/weight_source.ts";
import { createEngineScorer } from "../model/evaluate/engine_scorer.ts";
import { createCpuScorer, type Scorer } from "../model/evaluate/scorer.ts";
import type { Checkpoint } from "../model/files/checkpoint.ts";
import { bitsPerWeight, isPacked } from "../model/files/packed_checkpoint.ts";
import { release } from "../model/host/release.ts";
import { type LinearKind, STAGES } from "../model/llama/layer.ts";
import type { Model } from "../model/llama/llama.ts";
import { type Calibrator, createCalibrator, createFixedCalibrator } from "../model/quantize/calibrator.ts";
import { startOnCpu } from "../model/quantize/cpu_device.ts";
import { openModel } from "../model/load.ts";
import { quantizeModel } from "../model/quantize_file.ts";
import type { QuantizeOptions } from "../model/quantize_options.ts";
import { gpuDevice } from "../model/quantize/gpu_device.ts";
import { quantizeInMemory, quantizeLayers } from "../model/quantize/quantize_layers.ts";
import type { LayerSource, StoredLayer } from "../model/quantize/quantizing_device.ts";
import type { CpuPool } from "../model/workers/cpu_pool.ts";
import { decodeHalves } from "../model/workers/decode_halves.ts";

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

/** What decides the file that `quantize` writes by default, and where it lies for a while. */
export interface FileSettings {
  readonly seed: number;
  /** A directory that the run may write to; the working directory by default. */
  readonly directory?: string | undefined;
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

/**
 * A GPU: what is stored of a layer goes to the scorer, decoded to f16, before the next one is read. The host holds no more
 * of a model than quantizing it does.
 *
 * @param settings of the file that `quantize` writes by default
 */
export function gpuPlace(
  gpu: Gpu,
  pool: CpuPool,
  checkpoint: Checkpoint,
  { seed, directory = "." }: FileSettings,
): ModelPlace {
  const device = gpuDevice(gpu, pool);
  const scorer = createEngineScorer(gpu);
  const source = checkpointSource(checkpoint);
  const { config } = checkpoint;
  let opened: Promise<LayerSource & Disposable> | undefined;
  let close = () => {};
  const layers = async () => {
    const reader = await (opened ??= device.openLayers(checkpoint));
    close = () => reader[Symbol.dispose]();
    return reader;
  };
  const start = async ({ inputs, windows }: PlacePlan) => {
    if (inputs === "none") return await device.start(config);
    const embedding = await checkpoint.read("model.embed_tokens.weight", [config.vocabulary, config.hidden]);
    const [correctTarget, keepsInputs] = [inputs === "corrected", inputs === "unquantized"];
    try {
      return await device.start(config, { embedding, windows, correctTarget, keepsInputs });
    } finally {
      release(embedding); // the run took what the text needs
    }
  };
  const scoreFile = async (path: string) => {
    using packed = await openModel(path);
    if (!isPacked(packed)) throw new SyntaxError(`${path} is not packed, must be to be scored as such`);
    scorer.setWeights(await uploadWeights(gpu, checkpointSource(packed)));
    return bitsPerWeight(packed);
  };
  /** Quantizes the model as people do and gives the scorer what is in the file. */
  const quantizeToFile = async (
    asked: Pick<QuantizeOptions, "method" | "calibration">,
    onProgress: PlacePlan["onProgress"],
  ) => {
    await using made = await makeCleared(directory, "default_file");
    const path = join(made.path, "packed.safetensors");
    await quantizeModel(checkpoint.name, path, {
      ...{ ...asked, device: "gpu", seed, onProgress },
      // The row says that it has both.
      onPlan({ tune, reason }) {
        if (!tune && asked.method !== "search") throw new Error(`${checkpoint.name} can't be tuned: ${reason}`);
      },
      onDensities(chosen) {
        if (typeof chosen === "string") throw new Error(`${checkpoint.name} keeps one density: ${chosen}`);
      },
    });
    return await scoreFile(path);
  };
  return {
    gpu,
    isRealGpu: !gpu.isSoftware,
    scorer,
    layers,
    async scoreUnquantized() {
      scorer.setWeights(undefined);
      scorer.setWeights(await uploadWeights(gpu, source));
    },
    async quantize(plan) {
      scorer.setWeights(undefined);
      const { inputs, windows, onProgress } = plan;
      if (inputs === "default") return await quantizeToFile({ calibration: { tokens: windows } }, onProgress);
      if (typeof inputs === "object") {
        return await ("path" in inputs ? scoreFile(inputs.path) : quantizeToFile(inputs.asked, onProgress));
      }
      const size = { bytes: 0, weights: 0 };
      let finished: StoredLayer = new Map();
      // Freed at once, not when the collector comes to it: a stage of a large model is many megabytes.
      const decoded: Float16Array[] = [];
      const freeDecoded = () => decoded.splice(0).forEach(release);
      using upload = await startUpload(gpu, {
        ...source,
        async linear(_layer, kind) {
          // Those of the stage before are on the device.
          if (STAGES.some(({ linears: [first] }) => first === kind)) freeDecoded();
          const stored = finished.get(kind)!;
          const { rows, channels } = stored.tensor;
          const weights = await decodeHalves(pool, stored);
          decoded.push(weights);
          return { kind: "f16", rows, channels, weights };
        },
      });
      const upLayer = async (stored: StoredLayer) => {
        finished = stored;
        await upload.addLayer();
        freeDecoded();
      };
      let before = Promise.resolve();
      {
        using run = await start(plan);
        await quantizeLayers(run, await layers(), {
          quantizerOf: (_layer, kind) => plan.quantizerOf(kind),
          onProgress: plan.onProgress,
          async onLayer(stored) {
            addSizes(size, stored.values());
            await before;
            // A layer is decoded and goes up while the next one is quantized.
            before = upLayer(stored);
            before.catch(() => {}); // told where it is awaited
          },
        });
        await before;
      }
      scorer.setWeights(await upload.finish());
      return (8 * size.bytes) / size.weights;
    },
    [Symbol.dispose]() {
      close();
      gpu.close();
    },
  };
}

/** An empty directory until it is disposed, always of one name: what an interrupted run left goes with the next. */
export async function makeCleared(parent: string, name: string): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(parent, name);
  const clear = () => Deno.remove(path, { recursive: true }).catch(() => {});
  await clear();
  await Deno.mkdir(path, { recursive: true });
  return { path, [Symbol.asyncDispose]: clear };
}

interface Sizes {
  bytes: number;
  weights: number;
}

function addSizes(size: Sizes, tensors: Iterable<StoredTensor>): Sizes {
  for (const stored of tensors) {
    size.bytes += storedBytes(stored);
    size.weights += stored.tensor.rows * stored.tensor.channels;
  }
  return size;
}
