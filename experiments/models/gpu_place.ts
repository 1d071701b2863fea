// A GPU as the place where a run's model is quantized and scored, layer by layer.
import { join } from "@std/path";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type EngineWeights, startUpload, uploadWeights } from "../../model/engine/engine_weights.ts";
import { checkpointSource, type WeightSource } from "../../model/engine/weight_source.ts";
import { createEngineScorer } from "../../model/evaluate/engine_scorer.ts";
import type { Checkpoint } from "../../model/files/checkpoint.ts";
import { bitsPerWeight, isPacked } from "../../model/files/packed_checkpoint.ts";
import { release } from "../../model/host/release.ts";
import { STAGES } from "../../model/llama/layer.ts";
import { openModel } from "../../model/load.ts";
import { gpuDevice } from "../../model/quantize/gpu_device.ts";
import { quantizeLayers } from "../../model/quantize/quantize_layers.ts";
import type { LayerSource, StoredLayer } from "../../model/quantize/quantizing_device.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import type { QuantizeOptions } from "../../model/quantize_options.ts";
import type { CpuPool } from "../../model/workers/cpu_pool.ts";
import { decodeHalves } from "../../model/workers/decode_halves.ts";
import { makeCleared } from "./cleared_directory.ts";
import { addSizes, type ModelPlace, type PlacePlan } from "./model_place.ts";

/** What decides the file that `quantize` writes by default, and where it lies for a while. */
export interface FileSettings {
  readonly seed: number;
  /** A directory that the run may write to; the working directory by default. */
  readonly directory?: string | undefined;
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
      using upload = await startStoredUpload(gpu, pool, source);
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
            before = upload.addLayer(stored);
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

/** Takes what is stored of a model's layers to the device, in order. Dispose it to free what is there unfinished. */
interface StoredUpload extends Disposable {
  addLayer(stored: StoredLayer): Promise<void>;
  finish(): Promise<EngineWeights>;
}

/** Begins to upload a model whose layers are decoded to f16 from what is stored of them. */
async function startStoredUpload(gpu: Gpu, pool: CpuPool, source: WeightSource): Promise<StoredUpload> {
  let layer: StoredLayer = new Map();
  // Freed at once, not when the collector comes to it: a stage of a large model is many megabytes.
  const decoded: Float16Array[] = [];
  const freeDecoded = () => decoded.splice(0).forEach(release);
  const upload = await startUpload(gpu, {
    ...source,
    async linear(_layer, kind) {
      // Those of the stage before are on the device.
      if (STAGES.some(({ linears: [first] }) => first === kind)) freeDecoded();
      const stored = layer.get(kind)!;
      const { rows, channels } = stored.tensor;
      const weights = await decodeHalves(pool, stored);
      decoded.push(weights);
      return { kind: "f16", rows, channels, weights };
    },
  });
  return {
    ...upload,
    async addLayer(stored) {
      layer = stored;
      await upload.addLayer();
      freeDecoded();
    },
  };
}
