// Matrices of real layer shapes on the device, in copies that exceed the cache, and the bandwidth of a plain read.
import type { PackedTensor } from "../quant/packed_tensor.ts";
import { storedBytes } from "../quant/quantize.ts";
import { createBufferScope } from "../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../kernels/gpu/gpu.ts";
import { type PackedMatrix, uploadPackedMatrix } from "../kernels/matrix/packed_matrix.ts";
import { readMemory } from "../kernels/gpu/read_memory.ts";
import { calibrateTicks, timeDispatches, type Timing } from "../kernels/gpu/timer.ts";
import { copyMatrix, destroyMatrices } from "../kernels/matrix/slabs.ts";
import { type Estimate, medianEstimate } from "../model/host/statistics.ts";

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

/** Makes copies of a matrix on the device, runs `use` on them and frees them. */
export async function withCopies<T>(
  gpu: Gpu,
  tensor: PackedTensor,
  copies: number,
  use: (matrices: readonly PackedMatrix[]) => Promise<T>,
): Promise<T> {
  const matrices = [await uploadPackedMatrix(gpu, tensor)];
  while (matrices.length < copies) matrices.push(await copyMatrix(gpu, matrices[0]));
  await gpu.wait();
  try {
    return await use(matrices);
  } finally {
    destroyMatrices(gpu, ...matrices);
  }
}

/** A long read, whose bandwidth no kernel exceeds, and the length of a timestamp tick. */
export interface Ceiling {
  readonly sizeBytes: number;
  readonly timing: Timing;
  readonly bytesPerUs: number;
  readonly tickNs: number;
}

/** Measures {@linkcode Ceiling} on a buffer of 1 GiB, or 16 MiB on a software adapter. */
export async function measureCeiling(gpu: Gpu): Promise<Ceiling> {
  const sizeBytes = gpu.isSoftware ? 2 ** 24 : 2 ** 30;
  using scope = createBufferScope(gpu);
  const source = await scope.storage("source", sizeBytes);
  const words = Uint32Array.from({ length: 2 ** 20 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  for (let at = 0; at < sizeBytes; at += words.byteLength) gpu.write(source, words, at);
  const sink = await scope.storage("sink", 256);
  const read = await readMemory(gpu, source, sizeBytes, sink);
  const tickNs = gpu.isSoftware ? 1 : await calibrateTicks(gpu, read, 200);
  const timing = await timeDispatches(gpu, [[read]], { samples: 12, repeats: 4, tickNs, warmUpMs: 60 });
  return { sizeBytes, timing, bytesPerUs: sizeBytes / timing.medianUs, tickNs };
}

/**
 * The fraction of the long read's bandwidth that moving so many bytes in these times is, with the errors of both: 1 for
 * what is faster than the read, which then is no ceiling.
 */
export function fractionOfRead(bytes: number, timesUs: readonly number[], { bytesPerUs, timing }: Ceiling): Estimate {
  const [time, read] = [timesUs, timing.samplesUs].map(medianEstimate);
  const value = Math.min(1, bytes / time.value / bytesPerUs);
  return { value, standardError: value * Math.hypot(time.standardError / time.value, read.standardError / read.value) };
}

/** Bytes of all planes of a matrix: what a product has to read at least. */
export function bytesOf(tensor: PackedTensor): number {
  return storedBytes({ kind: "twobit", tensor });
}
