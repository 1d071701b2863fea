/**
 * Weights of a model in device memory, ready for the engine: matrices that share an input joined where their formats
 * allow it.
 *
 * @module
 */
import { type F16Matrix, uploadF16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { canJoin, uploadMatrix } from "../../kernels/product/linear.ts";
import type { HostMatrix, WeightMatrix } from "../../kernels/product/weight_format.ts";
import { sharePlanes } from "../../kernels/matrix/share_planes.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LinearKind } from "../llama/layer.ts";
import { RUN_LAYERS } from "./layer_runs.ts";
import type { WeightSource } from "./weight_source.ts";
import { buffersOf, copyMatrix, placeRows } from "../../kernels/matrix/slabs.ts";

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

/** One transformer layer in device memory. */
export interface EngineLayer extends LayerVectors {
  /** Rows of q, k and v. */
  readonly qkv: JoinedLinear;
  /** Attention's output layer. */
  readonly o: JoinedLinear;
  /** Rows of gate and up. */
  readonly gateUp: JoinedLinear;
  /** The MLP's output layer. */
  readonly down: JoinedLinear;
}

/** A model's weights in device memory. */
export interface EngineWeights {
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** f16 [vocabulary, hidden]. */
  readonly embedding: F16Matrix;
  /** The layers. */
  readonly layers: readonly EngineLayer[];
  /** f32 [hidden]. */
  readonly finalNorm: GPUBuffer;
  /** f16 [vocabulary, hidden]; the embedding where the head is tied. */
  readonly head: F16Matrix;
  /** Bytes in device memory. */
  readonly sizeBytes: number;
  /** Frees them. */
  destroy(): void;
}

/**
 * Uploads a model's weights tensor by tensor; the host holds one layer's matrices at a time.
 *
 * @throws {OutOfMemoryError} naming the layer at which the device had no room
 */
export async function uploadWeights(
  gpu: Gpu,
  source: WeightSource,
  onProgress: (share: number) => void = () => {},
): Promise<EngineWeights> {
  const { config } = source;
  const { vocabulary, hidden, tiedHead } = config;
  const before = gpu.heldBytes;
  const layers: EngineLayer[] = [];
  const buffers = new Set<GPUBuffer>();
  const destroy = () => {
    for (const buffer of buffers) gpu.destroyBuffer(buffer);
  };
  const half = async (name: string) => {
    const { weights } = await source.half(name, vocabulary, hidden);
    const matrix = await uploadF16Matrix(gpu, weights, vocabulary, hidden);
    for (const buffer of buffersOf(matrix)) buffers.add(buffer);
    return matrix;
  };
  // Vectors one after the other in one buffer.
  const vectors = async (names: readonly string[], lengths: readonly number[]) => {
    const values = new Float32Array(lengths.reduce((sum, length) => sum + length, 0));
    let at = 0;
    for (const [i, name] of names.entries()) {
      const part = await source.vector(name, lengths[i]);
      if (!part) throw new SyntaxError(`no tensor ${name}, must have one`);
      values.set(part, at);
      at += part.length;
    }
    const buffer = await gpu.uploadStorage(names[0], values);
    buffers.add(buffer);
    return buffer;
  };
  try {
    const embedding = await half("model.embed_tokens.weight");
    for (let i = 0; i < config.layers; i++) {
      layers.push(
        i > 0 && source.sameLayers
          ? await copyLayer(gpu, layers[0], buffers)
          : await uploadLayer(gpu, source, i, vectors, buffers),
      );
      if (layers.length % RUN_LAYERS === 0 || i === config.layers - 1) {
        const run = layers.splice(i - i % RUN_LAYERS);
        layers.push(...await shareLayerPlanes(gpu, run, buffers));
      }
      onProgress((i + 1) / (config.layers + 1));
    }
    const finalNorm = await vectors(["model.norm.weight"], [hidden]);
    const head = tiedHead ? embedding : await half("lm_head.weight");
    await gpu.wait();
    onProgress(1);
    return { config, embedding, layers, finalNorm, head, sizeBytes: gpu.heldBytes - before, destroy };
  } catch (error) {
    destroy();
    if (!(error instanceof OutOfMemoryError)) throw error;
    const message = `layer ${layers.length} of ${config.layers} doesn't fit: ${error.message}`;
    throw new OutOfMemoryError(message, error.neededBytes, error.heldBytes);
  }
}

async function uploadLayer(
  gpu: Gpu,
  source: WeightSource,
  index: number,
  vectors: (names: readonly string[], lengths: readonly number[]) => Promise<GPUBuffer>,
  buffers: Set<GPUBuffer>,
): Promise<EngineLayer> {
  const vector = (name: string, length: number) => vectors([name], [length]);
  const { hidden, headSize, attentionBias, outputBias, queryKeyNorm } = source.config;
  const joined = async (...kinds: LinearKind[]) => {
    const parts: HostMatrix[] = [];
    for (const kind of kinds) parts.push(await source.linear(index, kind));
    return await uploadJoined(gpu, parts, buffers);
  };
  const prefix = `model.layers.${index}`;
  const attentionNorm = await vector(`${prefix}.input_layernorm.weight`, hidden);
  const mlpNorm = await vector(`${prefix}.post_attention_layernorm.weight`, hidden);
  const attention = `${prefix}.self_attn`;
  const headNorm = [`${attention}.q_norm.weight`, `${attention}.k_norm.weight`];
  return {
    qkv: await joined("q_proj", "k_proj", "v_proj"),
    o: await joined("o_proj"),
    gateUp: await joined("gate_proj", "up_proj"),
    down: await joined("down_proj"),
    attentionNorm,
    mlpNorm,
    ...(attentionBias &&
      { qkvBias: await vectors(QKV.map((kind) => `${attention}.${kind}.bias`), qkvRows(source.config)) }),
    ...(outputBias && { outputBias: await vector(`${attention}.o_proj.bias`, hidden) }),
    ...(queryKeyNorm && { headNorm: await vectors(headNorm, [headSize, headSize]) }),
  };
}

/**
 * Moves the planes of all packed matrices of some layers into shared buffers, for kernels that take whole layers; in two
 * halves where the device can't bind them together or has no room for a copy of all.
 */
async function shareLayerPlanes(
  gpu: Gpu,
  layers: readonly EngineLayer[],
  buffers: Set<GPUBuffer>,
): Promise<EngineLayer[]> {
  const packed = layers.flatMap(({ qkv, o, gateUp, down }) => [...qkv, ...o, ...gateUp, ...down]).filter((matrix) =>
    matrix.kind === "packed"
  );
  // Without room for both copies the matrices stay as they are, and layers then run operation by operation.
  const shared = await sharePlanes(gpu, packed).catch((error) => {
    if (error instanceof OutOfMemoryError) return packed;
    throw error;
  });
  if (packed.length > 0 && shared === packed && layers.length > 1) {
    const middle = Math.ceil(layers.length / 2);
    const first = await shareLayerPlanes(gpu, layers.slice(0, middle), buffers);
    return [...first, ...await shareLayerPlanes(gpu, layers.slice(middle), buffers)];
  }
  for (const buffer of packed.flatMap(buffersOf)) buffers.delete(buffer);
  for (const buffer of shared.flatMap(buffersOf)) buffers.add(buffer);
  const byOwn = new Map<WeightMatrix, WeightMatrix>(packed.map((matrix, i) => [matrix, shared[i]]));
  const replace = (parts: JoinedLinear) => parts.map((part) => byOwn.get(part) ?? part);
  return layers.map((layer) => ({
    ...layer,
    qkv: replace(layer.qkv),
    o: replace(layer.o),
    gateUp: replace(layer.gateUp),
    down: replace(layer.down),
  }));
}

/** A layer with the same weights in buffers of its own. */
async function copyLayer(
  gpu: Gpu,
  layer: EngineLayer,
  buffers: Set<GPUBuffer>,
): Promise<EngineLayer> {
  const joined = async (parts: JoinedLinear) => {
    const copied: WeightMatrix[] = [];
    for (const part of parts) {
      const copy = await copyMatrix(gpu, part);
      for (const buffer of buffersOf(copy)) buffers.add(buffer);
      copied.push(copy);
    }
    return copied;
  };
  const vector = async (buffer: GPUBuffer) => {
    const copy = await gpu.duplicate(buffer);
    buffers.add(copy);
    return copy;
  };
  return {
    qkv: await joined(layer.qkv),
    o: await joined(layer.o),
    gateUp: await joined(layer.gateUp),
    down: await joined(layer.down),
    attentionNorm: await vector(layer.attentionNorm),
    mlpNorm: await vector(layer.mlpNorm),
    ...(layer.qkvBias && { qkvBias: await vector(layer.qkvBias) }),
    ...(layer.outputBias && { outputBias: await vector(layer.outputBias) }),
    ...(layer.headNorm && { headNorm: await vector(layer.headNorm) }),
  };
}

const QKV = ["q_proj", "k_proj", "v_proj"] as const;

function qkvRows({ heads, keyValueHeads, headSize }: ModelConfig): number[] {
  return [heads * headSize, keyValueHeads * headSize, keyValueHeads * headSize];
}

/** Joins neighbours of one format and uploads them, each into `uploaded` as soon as it is there. */
async function uploadJoined(
  gpu: Gpu,
  matrices: readonly HostMatrix[],
  uploaded: Set<GPUBuffer>,
): Promise<JoinedLinear> {
  const groups: HostMatrix[][] = [];
  for (const matrix of matrices) {
    const last = groups.at(-1);
    if (last && canJoin(last[last.length - 1], matrix)) last.push(matrix);
    else groups.push([matrix]);
  }
  const parts: WeightMatrix[] = [];
  for (const group of groups) {
    const matrix = await uploadMatrix(gpu, group);
    for (const buffer of buffersOf(matrix)) uploaded.add(buffer);
    parts.push(matrix);
  }
  const rows = parts.reduce((sum, matrix) => sum + matrix.rows, 0);
  let firstRow = 0;
  return parts.map((matrix) => {
    firstRow += matrix.rows;
    return placeRows(matrix, firstRow - matrix.rows, rows);
  });
}
