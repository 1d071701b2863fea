// Random transformer layers on the device and in host memory, for the tests of `decode_layer`.
import { type BufferScope, createBufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { decodeLayers, type LayerDispatches } from "../../kernels/layer/decode_layer.ts";
import type { DecodeLayer, LayerShape } from "../../kernels/layer/layer_run.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type CacheBits, cacheRowBytes, type KeyValueCache } from "../../kernels/attention/key_value_cache.ts";
import { uploadF16Matrix } from "../../kernels/matrix/f16_matrix.ts";
import { uploadPackedMatrix } from "../../kernels/matrix/packed_matrix.ts";
import type { ActivationBits } from "../../kernels/product/pack_activations.ts";
import { type LayerArena, type LayerMatrix, sharePlanes } from "../../kernels/matrix/share_planes.ts";
import type { KeyValues } from "../../model/llama/attention.ts";
import type { ModelConfig } from "../../model/llama/config.ts";
import { runLayer } from "../../model/llama/forward.ts";
import type { Layer, Linear } from "../../model/llama/llama.ts";
import type { MatMul } from "../../model/llama/matmul.ts";
import { configOfShape } from "../../model/engine/random_source.ts";
import { rotationTable } from "../../model/llama/rope.ts";
import { dequantize } from "../../quant/dequantize.ts";
import type { RefineEvery } from "../../quant/format.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import { createRandom, type Random } from "../../quant/random.ts";
import { packCache, roundRows, unpackCache } from "./attention/cache_rows.ts";
import { randomTensor, type TensorCase } from "./helpers.ts";

/** Matrices of a layer. */
export type MatrixKind = "qkv" | "o" | "gateUp" | "down";

/** Shape and content of layers under test. */
export interface LayersCase {
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Format of the weights. Default: packed. */
  readonly format?: "f16";
  /** Bits of an activation. Default: 16. */
  readonly activationBits?: ActivationBits;
  /** Bits of keys and values. Default: 16. */
  readonly cacheBits?: CacheBits;
  /** Layers of each run, which share their buffers. */
  readonly runs: readonly number[];
  readonly slidingWindow?: number;
  readonly withBias?: boolean;
  readonly withHeadNorm?: boolean;
  /** Share of outliers of a matrix. Default: none anywhere. */
  readonly outlierShare?: (layer: number, kind: MatrixKind) => number;
  /** Density of a matrix. Default: 8 everywhere. */
  readonly density?: (layer: number, kind: MatrixKind) => RefineEvery;
}

/** Tokens that the caches have room for. */
export const CAPACITY = 1280;

/** Keys and values of a layer, as the device has them before a token and after it. */
interface Caches {
  readonly before: readonly Float32Array[];
  readonly after: readonly Float32Array[];
}

/** Layers in both places. */
export interface TestLayers {
  readonly config: ModelConfig;
  readonly shape: LayerShape;
  /** For the CPU. */
  readonly host: readonly Layer[];
  /** For the device. */
  readonly layers: DecodeLayer[];
  /** Their matrices there. */
  readonly arenas: readonly LayerArena[];
  /** Takes the token at a position through all layers of the device, after tokens with these keys and values. */
  run(dispatches: LayerDispatches, input: Float32Array<ArrayBuffer>, prefixes: readonly KeyValues[]): Promise<{
    readonly output: Float32Array;
    /** f32 [keyValueHeads, CAPACITY, headSize] of each layer: keys, values. */
    readonly caches: readonly Caches[];
  }>;
  /** The dispatches, or why the layers don't suit. */
  decode(): Promise<LayerDispatches | string>;
  /** Frees what is on the device. */
  destroy(): void;
}

/** Weights about four times those of {@linkcode randomTensor}, so that what a layer adds is as large as its input. */
function randomWeights(shape: TensorCase, seed: number): PackedTensor {
  const tensor = randomTensor(shape, seed);
  return { ...tensor, tileScale: tensor.tileScale.map((scale) => 4 * scale) };
}

/** Random layers, their planes and caches shared by the layers of each run. */
export async function createTestLayers(gpu: Gpu, testCase: LayersCase, seed = 1): Promise<TestLayers> {
  const { hidden, intermediate, heads, keyValueHeads, headSize, runs, slidingWindow, withBias, withHeadNorm } =
    testCase;
  const { activationBits, cacheBits } = testCase;
  const count = runs.reduce((sum, length) => sum + length, 0);
  const sizes = { hidden, intermediate, layers: count, heads, keyValueHeads, headSize, vocabulary: 1, tiedHead: true };
  const config = {
    ...configOfShape({ name: "test", source: "none", ...sizes }, CAPACITY),
    ...(slidingWindow !== undefined && { slidingWindow }),
    queryKeyNorm: withHeadNorm ?? false,
  };
  const shape = {
    hidden,
    intermediate,
    normEpsilon: config.normEpsilon,
    attention: { heads, keyValueHeads, headSize, ...(slidingWindow !== undefined && { slidingWindow }) },
    ...(activationBits && { activationBits }),
  };
  const random = createRandom(seed);
  const scope = createBufferScope(gpu);
  const buffers = {
    input: await scope.storage("input", hidden * 4),
    output: await scope.storage("output", hidden * 4),
    rotations: await scope.upload("rotations", rotationTable(config.rope, headSize, CAPACITY)),
    sequence: await scope.upload("sequence", Uint32Array.of(0, 0)),
  };
  const host: Layer[] = [];
  const layers: DecodeLayer[] = [];
  const arenas: LayerArena[] = [];
  for (const length of runs) {
    const made = [];
    for (let i = 0; i < length; i++) {
      made.push(await createLayer(gpu, scope, config, testCase, host.length, random, withBias ?? false));
      host.push(made[i].host);
    }
    const arena = await sharePlanes(gpu, made.map(({ matrices }) => matrices));
    if (!arena) throw new Error("layers of a run must be alike");
    for (const buffer of arena.buffers) scope.own(buffer);
    arenas.push(arena);
    const rowBytes = cacheRowBytes(shape.attention, cacheBits);
    const plane = async (name: "keys" | "values") => {
      const size = keyValueHeads * CAPACITY * rowBytes[name];
      const buffer = await scope.storage(name, length * size);
      return (i: number) => ({ buffer, offset: i * size, size });
    };
    const [keys, values] = [await plane("keys"), await plane("values")];
    for (const [i, { vectors }] of made.entries()) {
      const bits = cacheBits && { bits: cacheBits };
      const cache: KeyValueCache = { ...bits, capacity: CAPACITY, keys: keys(i), values: values(i) };
      layers.push({ ...vectors, cache });
    }
  }
  return {
    config,
    shape,
    host,
    layers,
    arenas,
    decode: () => decodeLayers(gpu, scope, shape, arenas, layers, buffers),
    async run({ dispatches }, input, prefixes) {
      gpu.write(buffers.input, input);
      gpu.write(buffers.output, new Float32Array(hidden).fill(NaN));
      gpu.write(buffers.sequence, Uint32Array.of(prefixes[0].length, 0));
      const unpack = (keys: ArrayBuffer, values: ArrayBuffer) =>
        unpackCache(keys, values, CAPACITY, headSize, cacheBits);
      const before = layers.map(({ cache }, i) => {
        const rows = [toCache(prefixes[i].keys, config), toCache(prefixes[i].values, config)];
        const [keys, values] = packCache(rows[0], rows[1], CAPACITY, headSize, cacheBits);
        gpu.write(cache.keys.buffer, keys, cache.keys.offset);
        gpu.write(cache.values.buffer, values, cache.values.offset);
        return unpack(keys.buffer, values.buffer);
      });
      gpu.submit(dispatches);
      const output = await gpu.readF32(buffers.output);
      const caches: Caches[] = [];
      for (const [i, { cache: { keys, values } }] of layers.entries()) {
        const [k, v] = [
          await gpu.read(keys.buffer, keys.size, keys.offset),
          await gpu.read(values.buffer, values.size, values.offset),
        ];
        caches.push({ before: before[i], after: unpack(k, v) });
      }
      return { output, caches };
    },
    destroy: () => scope[Symbol.dispose](),
  };
}

async function createLayer(
  gpu: Gpu,
  scope: BufferScope,
  { hidden, intermediate, heads, keyValueHeads, headSize, normEpsilon }: ModelConfig,
  { outlierShare = () => 0, density = () => 8, withHeadNorm, format }: LayersCase,
  index: number,
  random: Random,
  withBias: boolean,
) {
  const [queryRows, keyRows] = [heads * headSize, keyValueHeads * headSize];
  const draw = (length: number, mean = 0) => Float32Array.from({ length }, () => mean + 0.5 * random.normal());
  const weights = (kind: MatrixKind, rows: number, channels: number) => {
    const shape = { rows, channels, refineEvery: density(index, kind), outlierShare: outlierShare(index, kind) };
    return randomWeights(shape, random.integer(2 ** 32));
  };
  const tensors = {
    qkv: weights("qkv", queryRows + 2 * keyRows, hidden),
    o: weights("o", hidden, queryRows),
    gateUp: weights("gateUp", 2 * intermediate, hidden),
    down: weights("down", hidden, intermediate),
  };
  const matrices: LayerMatrix[] = [];
  for (const tensor of Object.values(tensors)) {
    const { rows, channels } = tensor;
    const packed = () => uploadPackedMatrix(gpu, tensor);
    matrices.push(format ? await uploadF16Matrix(gpu, halfWeights(tensor), rows, channels) : await packed());
  }
  const [attentionNorm, mlpNorm] = [draw(hidden, 1), draw(hidden, 1)];
  const bias = withBias ? draw(queryRows + 2 * keyRows) : undefined;
  const norms = withHeadNorm ? draw(2 * headSize, 1) : undefined;
  const rowsOf = (tensor: PackedTensor, first: number, rows: number): Linear => ({
    rows,
    channels: tensor.channels,
    weights: Float32Array.from(format ? halfWeights(tensor) : dequantize(tensor)).subarray(
      first * tensor.channels,
      (first + rows) * tensor.channels,
    ),
    ...(bias && tensor === tensors.qkv && { bias: bias.subarray(first, first + rows) }),
  });
  const host: Layer = {
    attentionNorm,
    mlpNorm,
    ...(norms && { queryNorm: norms.subarray(0, headSize), keyNorm: norms.subarray(headSize) }),
    linears: {
      q_proj: rowsOf(tensors.qkv, 0, queryRows),
      k_proj: rowsOf(tensors.qkv, queryRows, keyRows),
      v_proj: rowsOf(tensors.qkv, queryRows + keyRows, keyRows),
      o_proj: rowsOf(tensors.o, 0, hidden),
      gate_proj: rowsOf(tensors.gateUp, 0, intermediate),
      up_proj: rowsOf(tensors.gateUp, intermediate, intermediate),
      down_proj: rowsOf(tensors.down, 0, hidden),
    },
  };
  const vectors = {
    attentionNorm: await scope.upload("attention norm", attentionNorm),
    mlpNorm: await scope.upload("mlp norm", mlpNorm),
    ...(bias && { bias: await scope.upload("bias", bias) }),
    ...(norms && { headNorm: { weights: await scope.upload("head norms", norms), epsilon: normEpsilon } }),
  };
  return { matrices, host, vectors };
}

function halfWeights(tensor: PackedTensor): Float16Array<ArrayBuffer> {
  return Float16Array.from(dequantize(tensor));
}

/** [keyValueHeads, CAPACITY, headSize] from [tokens, keyValueHeads * headSize]; NaN where there is no token. */
function toCache(rows: Float32Array, { keyValueHeads: heads, headSize: size }: ModelConfig) {
  const cache = new Float32Array(heads * CAPACITY * size).fill(NaN);
  for (let at = 0; at < rows.length; at += size) {
    const [token, head] = [Math.floor(at / size / heads), at / size % heads];
    cache.set(rows.subarray(at, at + size), (head * CAPACITY + token) * size);
  }
  return cache;
}

/** Keys and values of some tokens in each layer, as a cache of so many bits holds them. */
export function randomPrefixes(
  { keyValueHeads, headSize, layers }: ModelConfig,
  tokens: number,
  seed: number,
  bits?: CacheBits,
) {
  const random = createRandom(seed);
  const width = keyValueHeads * headSize;
  const draw = () => roundRows(Float32Array.from({ length: tokens * width }, () => random.normal()), headSize, bits);
  return Array.from({ length: layers }, (): KeyValues => ({ length: tokens, keys: draw(), values: draw() }));
}

/** The first tokens of longer sequences. */
export function firstTokens(prefixes: readonly KeyValues[], length: number): KeyValues[] {
  const part = (values: Float32Array, of: number) => values.subarray(0, values.length / of * length);
  return prefixes.map(({ keys, values, length: of }) => ({ length, keys: part(keys, of), values: part(values, of) }));
}

/** One token through all layers by the CPU reference, with its key and value in each. */
export function layersOnCpu(
  { config, host }: TestLayers,
  input: Float32Array,
  prefixes: readonly KeyValues[],
  matmul: MatMul,
): { readonly output: Float32Array; readonly entries: readonly KeyValues[] } {
  const output = Float32Array.from(input);
  const entries = host.map((layer, i) => {
    const flow = { config, layer, hidden: output, lengths: [1], prefixes: [prefixes[i]], keyValues: [], matmul };
    return runLayer(flow)[0];
  });
  return { output, entries };
}
