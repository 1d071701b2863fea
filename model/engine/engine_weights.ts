// Weights of a model in device memory, ready for the engine: matrices that share an input joined where their formats
// allow it.
import { checkAttentionShape } from "../../kernels/attention/key_value_cache.ts";
import { createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { CHUNK_CHANNELS, type F16Matrix, uploadF16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import type { LayerArena } from "../../kernels/matrix/share_planes.ts";
import { destroyMatrices } from "../../kernels/matrix/slabs.ts";
import type { WeightMatrix } from "../../kernels/product/weight_format.ts";
import { release } from "../host/release.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { Stage } from "../llama/layer.ts";
import { copyLayer, shareLayers, type Uploaded, uploadLayer, uploadVectors } from "./upload_layer.ts";
import type { WeightSource } from "./weight_source.ts";

/**
 * Most bytes of consecutive layers that share the buffers of their weights, so that a dispatch of a decode step can
 * take them all. A dispatch costs 4 us on an H200; but while the weights of a run move together they are on the device
 * twice.
 */
const RUN_BYTES = 2.1e9;

/**
 * Linear layers with one input: one matrix where their formats allow joining, else several. Each part has the rows of
 * all as its `rows`, and slabs that know their place among them, so that products write to one output.
 */
export type JoinedLinear = readonly WeightMatrix[];

export interface LayerVectors {
  /** f32 [hidden]. */
  readonly attentionNorm: GPUBuffer;
  /** f32 [hidden]. */
  readonly mlpNorm: GPUBuffer;
  /** f32 [rows of q, k and v], where the model has it. */
  readonly qkvBias?: GPUBuffer;
  /** f32 [hidden]: bias of o, where the model has it. */
  readonly outputBias?: GPUBuffer;
  /** f32 [2, headSize]: norms of query and key heads, where the model has them. */
  readonly headNorm?: GPUBuffer;
}

export type StageLinears = Readonly<Record<Stage["name"], JoinedLinear>>;

export interface EngineLayer extends LayerVectors {
  readonly linears: StageLinears;
}

/** A model's weights in device memory. Dispose them to free it. */
export interface EngineWeights extends Disposable {
  readonly config: ModelConfig;
  /** f16 [vocabulary, hidden]. */
  readonly embedding: F16Matrix;
  readonly layers: readonly EngineLayer[];
  /** Where the matrices of all layers lie, for kernels that take whole layers; or why those can't take them. */
  readonly arenas: readonly LayerArena[] | string;
  /** f32 [hidden]. */
  readonly finalNorm: GPUBuffer;
  /** f16 [vocabulary, hidden]; the embedding where the head is tied. */
  readonly head: F16Matrix;
  readonly sizeBytes: number;
  /** Whether that memory was freed, and nothing can be computed with them. */
  readonly isDisposed: boolean;
}

/** Refuses sizes that the kernels don't take, before anything is read. @throws {RangeError} */
function checkSizes(config: ModelConfig): void {
  checkAttentionShape(config);
  for (const name of ["hidden", "intermediate"] as const) {
    if (config[name] % CHUNK_CHANNELS === 0) continue;
    throw new RangeError(`${name} size is ${config[name]}, must be a multiple of ${CHUNK_CHANNELS}`);
  }
}

/**
 * Uploads a model's weights tensor by tensor; the host holds one layer's matrices at a time.
 *
 * @throws {RangeError} for sizes that the kernels don't take
 * @throws {OutOfMemoryError} naming the layer at which the device had no room
 */
export async function uploadWeights(
  gpu: Gpu,
  source: WeightSource,
  onProgress: (share: number) => void = () => {},
): Promise<EngineWeights> {
  const { layers } = source.config;
  using upload = await startUpload(gpu, source);
  for (let count = 1; count <= layers; count++) {
    await upload.addLayer();
    onProgress(count / (layers + 1));
  }
  const weights = await upload.finish();
  onProgress(1);
  return weights;
}

/** Weights on their way to the device, layer by layer. Dispose it to free those of an upload that isn't finished. */
export interface WeightsUpload extends Disposable {
  /** Uploads the next layer, of which the source is asked for nothing but now. */
  addLayer(): Promise<void>;
  /** Uploads what comes after the layers; the weights are the caller's then. */
  finish(): Promise<EngineWeights>;
}

/** Begins to upload a model's weights, as {@linkcode uploadWeights} does at once. */
export async function startUpload(gpu: Gpu, source: WeightSource): Promise<WeightsUpload> {
  const { config, sameLayers } = source;
  const { vocabulary, hidden, tiedHead } = config;
  checkSizes(config);
  const before = gpu.heldBytes;
  const uploaded: Uploaded = { gpu, matrices: new Set(), scope: createBufferScope(gpu) };
  let isDisposed = false;
  const free = () => {
    if (isDisposed) return;
    isDisposed = true;
    destroyMatrices(gpu, ...uploaded.matrices);
    uploaded.scope[Symbol.dispose]();
  };
  const half = async (name: string) => {
    const { weights, rows, channels } = await source.half(name, vocabulary, hidden);
    const matrix = await uploadF16Matrix(gpu, weights, rows, channels);
    uploaded.matrices.add(matrix);
    release(weights);
    return matrix;
  };
  const layers: EngineLayer[] = [];
  let shared = 0; // layers of whole runs
  const arenas: (LayerArena | string)[] = [];
  /** Frees everything where an upload fails. */
  const orFree = async <T>(upload: () => Promise<T>): Promise<T> => {
    try {
      return await upload();
    } catch (error) {
      free();
      if (!(error instanceof OutOfMemoryError)) throw error;
      const message = `layer ${layers.length} of ${config.layers} doesn't fit: ${error.message}`;
      throw new OutOfMemoryError(message, error.neededBytes, error.heldBytes);
    }
  };
  const embedding = await orFree(() => half("model.embed_tokens.weight"));
  let isFinished = false;
  return {
    addLayer: () =>
      orFree(async () => {
        const i = layers.length;
        const heldBytes = gpu.heldBytes;
        layers.push(
          i > 0 && sameLayers ? await copyLayer(uploaded, layers[0]) : await uploadLayer(uploaded, source, i),
        );
        const layerBytes = gpu.heldBytes - heldBytes;
        if (i < config.layers - 1 && (layers.length - shared + 1) * layerBytes <= RUN_BYTES) return;
        const run = await shareLayers(uploaded, layers.splice(shared));
        layers.push(...run.layers);
        shared = layers.length;
        arenas.push(...run.arenas);
      }),
    finish: () =>
      orFree(async () => {
        const finalNorm = await uploadVectors(uploaded, source, ["model.norm.weight"], [hidden]);
        const head = tiedHead ? embedding : await half("lm_head.weight");
        await gpu.wait();
        isFinished = true;
        return {
          config,
          embedding,
          layers,
          arenas: arenas.find((arena) => typeof arena === "string") ??
            arenas.filter((arena) => typeof arena === "object"),
          finalNorm,
          head,
          sizeBytes: gpu.heldBytes - before,
          get isDisposed() {
            return isDisposed;
          },
          [Symbol.dispose]: free,
        };
      }),
    [Symbol.dispose]() {
      if (!isFinished) free();
    },
  };
}
