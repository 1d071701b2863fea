/**
 * Matrices of real layer shapes on the device, and timing over copies of them that exceed the cache.
 *
 * @module
 */
import { BLOCK_GROUPS, blocksPerRow, GROUP_CHANNELS, TILE_ROWS, tilesPerColumn } from "../quant/format.ts";
import { pack } from "../quant/pack.ts";
import type { PackedTensor } from "../quant/packed_tensor.ts";
import { createRandom } from "../quant/random.ts";
import type { Dispatch, Gpu } from "../kernels/gpu.ts";
import { destroyPackedMatrix, type PackedMatrix, uploadPackedMatrix } from "../kernels/packed_matrix.ts";
import { readMemory } from "../kernels/read_memory.ts";
import { calibrateTicks, timeDispatches, type Timing } from "../kernels/timer.ts";

/** A linear layer of a model; matrices that share an input are fused. */
export interface LayerShape {
  readonly model: string;
  readonly layer: "qkv" | "o" | "gate+up" | "down";
  readonly rows: number;
  readonly channels: number;
}

/** Fused linear layers of the models that the paper and its readers use. */
export const LAYER_SHAPES: readonly LayerShape[] = [
  ...layersOf("Llama-2 7B", 4096, 12288, 11008),
  ...layersOf("Llama-2 13B", 5120, 15360, 13824),
  ...layersOf("Llama-2 70B", 8192, 10240, 28672),
  ...layersOf("Llama-3 8B", 4096, 6144, 14336),
];

function layersOf(model: string, hidden: number, qkvRows: number, intermediate: number): LayerShape[] {
  return [
    { model, layer: "qkv", rows: qkvRows, channels: hidden },
    { model, layer: "o", rows: hidden, channels: hidden },
    { model, layer: "gate+up", rows: 2 * intermediate, channels: hidden },
    { model, layer: "down", rows: hidden, channels: intermediate },
  ];
}

/** A layer small enough for a software adapter, in place of {@linkcode LAYER_SHAPES}. */
export const SOFTWARE_SHAPES: readonly LayerShape[] = [
  { model: "a slice of Llama-2 7B", layer: "o", rows: 256, channels: 4096 },
];

/** Copies of a matrix exceed this together: three times the largest second-level cache of today's GPUs. */
const ROTATION_BYTES = 192 * 2 ** 20;

/** Number of copies of `bytes` to rotate over. */
export function copiesOf(gpu: Gpu, bytes: number): number {
  return gpu.isSoftware ? 2 : Math.max(2, Math.ceil(ROTATION_BYTES / bytes));
}

/** Rows drawn at random; larger matrices repeat them. */
const RANDOM_ROWS = 64;

/** A packed matrix of random codes. */
export function randomPacked(rows: number, channels: number, outlierShare: number, seed: number): PackedTensor {
  const random = createRandom(seed);
  const groups = blocksPerRow(channels) * BLOCK_GROUPS;
  const refined = new Uint8Array(RANDOM_ROWS * groups);
  for (let i = 0; i < refined.length; i += BLOCK_GROUPS) refined[i + random.integer(BLOCK_GROUPS)] = 1;
  const draw = (length: number, limit: (i: number) => number) =>
    Uint8Array.from({ length }, (_, i) => random.integer(limit(i)));
  const perRow = Math.round(channels * outlierShare);
  const tensor = pack({
    rows: RANDOM_ROWS,
    channels,
    refineEvery: 8,
    refined,
    codes: draw(refined.length * GROUP_CHANNELS, (i) => refined[Math.floor(i / GROUP_CHANNELS)] ? 16 : 4),
    scaleCodes: draw(refined.length, () => 16),
    zeroCodes: draw(refined.length, () => 8),
    tileScale: Float16Array.from(
      { length: (RANDOM_ROWS / TILE_ROWS) * groups },
      () => 0.001 * (0.5 + random.uniform()),
    ),
    outliers: {
      start: perRow === 0
        ? new Uint32Array(0)
        : Uint32Array.from({ length: RANDOM_ROWS + 1 }, (_, row) => row * perRow),
      channel: Uint16Array.from({ length: RANDOM_ROWS * perRow }, (_, i) => {
        return Math.floor(((i % perRow) + random.uniform()) * (channels / perRow));
      }),
      residual: Float16Array.from({ length: RANDOM_ROWS * perRow }, () => random.normal() * 0.05),
    },
  });
  return repeatRows(tensor, rows, perRow);
}

function repeatRows(tensor: PackedTensor, rows: number, outliersPerRow: number): PackedTensor {
  const outliers = rows * outliersPerRow;
  return {
    ...tensor,
    rows,
    base: repeat(tensor.base, new Uint32Array((tensor.base.length / RANDOM_ROWS) * rows)),
    refine: repeat(tensor.refine, new Uint32Array((tensor.refine.length / RANDOM_ROWS) * rows)),
    meta: repeat(tensor.meta, new Uint32Array((tensor.meta.length / RANDOM_ROWS) * rows)),
    tileScale: repeat(
      tensor.tileScale,
      new Float16Array(((tensor.tileScale.length * TILE_ROWS) / RANDOM_ROWS) * tilesPerColumn(rows)),
    ),
    outlierStart: outliers === 0
      ? tensor.outlierStart
      : Uint32Array.from({ length: rows + 1 }, (_, row) => row * outliersPerRow),
    outlierChannel: repeat(tensor.outlierChannel, new Uint16Array(outliers)),
    outlierResidual: repeat(tensor.outlierResidual, new Float16Array(outliers)),
  };
}

function repeat<T extends Uint32Array | Uint16Array | Float16Array>(pattern: T, target: T): T {
  for (let at = 0; at < target.length; at += pattern.length) {
    target.set(pattern.subarray(0, Math.min(pattern.length, target.length - at)), at);
  }
  return target;
}

/** Uploads copies of a matrix, runs `use` on them and frees them. */
export async function withCopies<T>(
  gpu: Gpu,
  tensor: PackedTensor,
  copies: number,
  use: (matrices: readonly PackedMatrix[]) => Promise<T>,
): Promise<T> {
  const matrices: PackedMatrix[] = [];
  for (let i = 0; i < copies; i++) matrices.push(await uploadPackedMatrix(gpu, tensor));
  await gpu.wait();
  try {
    return await use(matrices);
  } finally {
    for (const matrix of matrices) destroyPackedMatrix(gpu, matrix);
  }
}

/** Times sequences in rotation; a sample is at least 64 of them where the device is a GPU. */
export function timeRotation(gpu: Gpu, sequences: readonly (readonly Dispatch[])[], tickNs: number): Promise<Timing> {
  const repeats = gpu.isSoftware ? sequences.length : Math.ceil(64 / sequences.length) * sequences.length;
  return timeDispatches(gpu, sequences, { samples: 12, repeats, tickNs, warmUpMs: gpu.isSoftware ? 1 : 40 });
}

/** Read bandwidth of a long read, and the length of a timestamp tick. */
export interface Ceiling {
  readonly bytesPerUs: number;
  readonly tickNs: number;
}

/** Measures {@linkcode Ceiling} on a buffer of 1 GiB, or 16 MiB on a software adapter. */
export async function measureCeiling(gpu: Gpu): Promise<Ceiling> {
  const sizeBytes = gpu.isSoftware ? 2 ** 24 : 2 ** 30;
  const source = await gpu.createStorage("source", sizeBytes);
  const words = Uint32Array.from({ length: 2 ** 20 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  for (let at = 0; at < sizeBytes; at += words.byteLength) gpu.write(source, words, at);
  const sink = await gpu.createStorage("sink", 256);
  const read = await readMemory(gpu, source, sizeBytes, sink);
  const tickNs = gpu.isSoftware ? 1 : await calibrateTicks(gpu, read, 200);
  const timing = await timeDispatches(gpu, [[read]], { samples: 12, repeats: 4, tickNs, warmUpMs: 60 });
  gpu.destroyBuffer(source);
  gpu.destroyBuffer(sink);
  return { bytesPerUs: sizeBytes / timing.medianUs, tickNs };
}

/** Bytes of all planes of a matrix: what a product has to read at least. */
export function bytesOf(tensor: PackedTensor): number {
  const { base, refine, meta, tileScale, outlierStart, outlierChannel, outlierResidual } = tensor;
  return [base, refine, meta, tileScale, outlierStart, outlierChannel, outlierResidual]
    .reduce((sum, plane) => sum + plane.byteLength, 0);
}
