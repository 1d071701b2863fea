/**
 * Weights of a model in device memory, ready for the engine: matrices that share an input joined where their formats
 * allow it.
 *
 * @module
 */
import { checkAttentionShape } from "../../kernels/attention/key_value_cache.ts";
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { CHUNK_CHANNELS, type F16Matrix, uploadF16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import type { PackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import { type LayerArena, sharePlanes } from "../../kernels/matrix/share_planes.ts";
import { copyMatrix, destroyMatrices, placeRows } from "../../kernels/matrix/slabs.ts";
import { canJoin, uploadMatrix } from "../../kernels/product/linear.ts";
import type { HostMatrix, WeightMatrix } from "../../kernels/product/weight_format.ts";
import type { ModelConfig } from "../llama/config.ts";
import {
  hasBias,
  type LinearKind,
  linearName,
  linearShape,
  type NormKind,
  normName,
  normWidth,
  type Stage,
  STAGES,
} from "../llama/layer.ts";
import type { WeightSource } from "./weight_source.ts";

/**
 * Layers that share the buffers of their weights and caches, so that a dispatch of a decode step can take them all.
 * Each dispatch less saves about 3 us of a layer's 50 on an H200; but while the weights of a run move together they are
 * on the device twice.
 */
export const RUN_LAYERS = 4;

/**
 * Linear layers with one input: one matrix where their formats allow joining, else several. Each part has the rows of
 * all as its `rows`, and slabs that know their place among them, so that products write to one output.
 */
export type JoinedLinear = readonly WeightMatrix[];

/** The vectors of a transformer layer in device memory. */
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

/** The linear layers of each stage. */
export type StageLinears = Readonly<Record<Stage["name"], JoinedLinear>>;

/** One transformer layer in device memory. */
export interface EngineLayer extends LayerVectors {
  /** Its matrices. */
  readonly linears: StageLinears;
}

/** A model's weights in device memory. Dispose them to free it. */
export interface EngineWeights extends Disposable {
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** f16 [vocabulary, hidden]. */
  readonly embedding: F16Matrix;
  /** The layers. */
  readonly layers: readonly EngineLayer[];
  /** Where the matrices of all layers lie, for kernels that take whole layers; or why those can't take them. */
  readonly arenas: readonly LayerArena[] | string;
  /** f32 [hidden]. */
  readonly finalNorm: GPUBuffer;
  /** f16 [vocabulary, hidden]; the embedding where the head is tied. */
  readonly head: F16Matrix;
  /** Bytes in device memory. */
  readonly sizeBytes: number;
  /** Whether that memory was freed, and nothing can be computed with them. */
  readonly isDisposed: boolean;
}

/** What is on the device so far. */
interface Uploaded {
  readonly gpu: Gpu;
  /** Matrices with planes of their own. */
  readonly matrices: Set<WeightMatrix>;
  /** Vectors, and planes that matrices share. */
  readonly scope: BufferScope;
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
    return matrix;
  };
  const layers: EngineLayer[] = [];
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
        layers.push(
          i > 0 && sameLayers ? await copyLayer(uploaded, layers[0]) : await uploadLayer(uploaded, source, i),
        );
        if (layers.length % RUN_LAYERS !== 0 && i !== config.layers - 1) return;
        const shared = await shareLayers(uploaded, layers.splice(i - i % RUN_LAYERS));
        layers.push(...shared.layers);
        arenas.push(...shared.arenas);
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

/** A value for each stage. */
async function byStage<T>(make: (stage: Stage) => T | Promise<T>): Promise<Record<Stage["name"], T>> {
  const made: [Stage["name"], T][] = [];
  for (const stage of STAGES) made.push([stage.name, await make(stage)]);
  return Object.fromEntries(made) as Record<Stage["name"], T>;
}

async function uploadLayer(uploaded: Uploaded, source: WeightSource, index: number): Promise<EngineLayer> {
  const { config } = source;
  const vectors = (names: readonly string[], lengths: readonly number[]) =>
    uploadVectors(uploaded, source, names, lengths);
  const norms = (...kinds: readonly NormKind[]) =>
    vectors(kinds.map((kind) => normName(index, kind)), kinds.map((kind) => normWidth(config, kind)!));
  const biases = (kinds: readonly LinearKind[]) =>
    vectors(kinds.map((kind) => `${linearName(index, kind)}.bias`), kinds.map((kind) => linearShape(config, kind)[0]));
  const [{ linears: qkv }, { linears: o }] = STAGES;
  const linears = await byStage(async (stage) => {
    const parts: HostMatrix[] = [];
    for (const kind of stage.linears) parts.push(await source.linear(index, kind));
    return await uploadJoined(uploaded, parts);
  });
  return {
    linears,
    attentionNorm: await norms("attentionNorm"),
    mlpNorm: await norms("mlpNorm"),
    ...(hasBias(config, qkv[0]) && { qkvBias: await biases(qkv) }),
    ...(hasBias(config, o[0]) && { outputBias: await biases(o) }),
    ...(normWidth(config, "queryNorm") && { headNorm: await norms("queryNorm", "keyNorm") }),
  };
}

/** Uploads vectors one after the other in one buffer. */
async function uploadVectors(
  { scope }: Uploaded,
  source: WeightSource,
  names: readonly string[],
  lengths: readonly number[],
): Promise<GPUBuffer> {
  const values = new Float32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const [i, name] of names.entries()) {
    const part = await source.vector(name, lengths[i]);
    if (!part) throw new SyntaxError(`no tensor ${name}, must have one`);
    values.set(part, at);
    at += part.length;
  }
  return await scope.upload(names[0], values);
}

/** Layers whose matrices share their planes where that is possible, and where they then lie, or why they don't. */
interface SharedLayers {
  readonly layers: readonly EngineLayer[];
  readonly arenas: readonly (LayerArena | string)[];
}

/**
 * Moves the planes of packed layers into shared buffers, for kernels that take whole layers; in two halves where the
 * device can't bind them together or has no room for a copy of all.
 */
async function shareLayers(uploaded: Uploaded, layers: readonly EngineLayer[]): Promise<SharedLayers> {
  const { gpu, matrices, scope } = uploaded;
  const parts = layers.map(({ linears }) => STAGES.map(({ name }) => linears[name]));
  const packed = parts.map((layer) =>
    layer.map(([first]) => first).filter((matrix): matrix is PackedMatrix => matrix.kind === "packed")
  );
  if (packed.flat().length < parts.flat().length) {
    return { layers, arenas: ["not all linear layers are packed, must be"] };
  }
  if (parts.flat().some(({ length }) => length > 1)) {
    return { layers, arenas: ["linear layers of one input aren't packed alike, must be"] };
  }
  // Without room for both copies the matrices stay as they are, and layers then run operation by operation.
  const arena = await sharePlanes(gpu, packed).catch((error) => {
    if (!(error instanceof OutOfMemoryError)) throw error;
  });
  if (arena) {
    for (const matrix of packed.flat()) matrices.delete(matrix);
    for (const buffer of arena.buffers) scope.own(buffer);
    const moved = arena.layers.map(async (shared, i) => {
      const own = shared.values();
      return { ...layers[i], linears: await byStage(() => [own.next().value!]) };
    });
    return { layers: await Promise.all(moved), arenas: [arena] };
  }
  if (layers.length === 1) {
    return { layers, arenas: ["a layer's planes can't be bound together, or have no room to be moved"] };
  }
  const middle = Math.ceil(layers.length / 2);
  const first = await shareLayers(uploaded, layers.slice(0, middle));
  const second = await shareLayers(uploaded, layers.slice(middle));
  return { layers: [...first.layers, ...second.layers], arenas: [...first.arenas, ...second.arenas] };
}

/** A layer with the same weights in buffers of its own. */
async function copyLayer({ gpu, matrices, scope }: Uploaded, layer: EngineLayer): Promise<EngineLayer> {
  const linears = await byStage(async ({ name }) => {
    const copied: WeightMatrix[] = [];
    for (const part of layer.linears[name]) {
      const copy = await copyMatrix(gpu, part);
      matrices.add(copy);
      copied.push(copy);
    }
    return copied;
  });
  const vector = async (buffer: GPUBuffer) => scope.own(await gpu.duplicate(buffer));
  return {
    linears,
    attentionNorm: await vector(layer.attentionNorm),
    mlpNorm: await vector(layer.mlpNorm),
    ...(layer.qkvBias && { qkvBias: await vector(layer.qkvBias) }),
    ...(layer.outputBias && { outputBias: await vector(layer.outputBias) }),
    ...(layer.headNorm && { headNorm: await vector(layer.headNorm) }),
  };
}

/** Joins neighbours of one format and uploads them. */
async function uploadJoined({ gpu, matrices }: Uploaded, parts: readonly HostMatrix[]): Promise<JoinedLinear> {
  const groups: HostMatrix[][] = [];
  for (const part of parts) {
    const last = groups.at(-1);
    if (last && canJoin(last[last.length - 1], part)) last.push(part);
    else groups.push([part]);
  }
  const own: WeightMatrix[] = [];
  for (const group of groups) {
    const matrix = await uploadMatrix(gpu, group);
    matrices.add(matrix);
    own.push(matrix);
  }
  const rows = own.reduce((sum, matrix) => sum + matrix.rows, 0);
  let firstRow = 0;
  return own.map((matrix) => {
    firstRow += matrix.rows;
    const placed = placeRows(matrix, firstRow - matrix.rows, rows);
    matrices.delete(matrix);
    matrices.add(placed);
    return placed;
  });
}
