/**
 * Random tensors, poisoned outputs and element-wise bounds for the kernel tests.
 *
 * @module
 */
import { BLOCK_GROUPS, blocksPerRow, GROUP_CHANNELS, type RefineEvery, TILE_ROWS } from "../../quant/format.ts";
import { pack } from "../../quant/pack.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import { createRandom, type Random } from "../../quant/random.ts";
import { NO_OUTLIERS, type Outliers } from "../../quant/unpacked_tensor.ts";
import type { BufferScope } from "../../kernels/buffer_scope.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/square_matrix.ts";
import type { BoundedProduct } from "../../kernels/fused_gemv_twin.ts";
import { type Gpu, openGpu } from "../../kernels/gpu.ts";
import { assert } from "../assert.ts";

/** Shape and content of a packed matrix under test. */
export interface TensorCase {
  readonly rows: number;
  readonly channels: number;
  readonly refineEvery: RefineEvery;
  /** Share of weights that are outliers; 0 for empty planes. */
  readonly outlierShare: number;
}

/** The device that the tests of a file share. Its absence fails them: they are never skipped in silence. */
export function testGpu(): Promise<Gpu> {
  return shared ??= openGpu();
}
let shared: Promise<Gpu> | undefined;

/** A square matrix f32 [size, size] on the device, in slabs of at most so many bytes. */
export async function uploadSquare(
  gpu: Gpu,
  scope: BufferScope,
  values: Float32Array<ArrayBuffer>,
  maxBindingBytes?: number,
): Promise<SquareMatrix> {
  const size = Math.sqrt(values.length);
  const matrix = await createSquareMatrix(gpu, scope, "square", size, maxBindingBytes);
  for (const { firstRow, rows, buffer } of matrix.slabs) {
    gpu.write(buffer, values.subarray(firstRow * size, (firstRow + rows) * size));
  }
  return matrix;
}

/** Reads a square matrix back. */
export async function readSquare(gpu: Gpu, { size, slabs }: SquareMatrix): Promise<Float32Array<ArrayBuffer>> {
  const values = new Float32Array(size * size);
  for (const { firstRow, buffer } of slabs) values.set(await gpu.readF32(buffer), firstRow * size);
  return values;
}

/** A packed matrix with every code, zero, scale and pick drawn at random. */
export function randomTensor(shape: TensorCase, seed: number): PackedTensor {
  const { rows, channels, refineEvery, outlierShare } = shape;
  const random = createRandom(seed);
  const groups = blocksPerRow(channels) * BLOCK_GROUPS;
  const refined = new Uint8Array(rows * groups);
  if (refineEvery !== "none") {
    for (let row = 0; row < rows; row++) {
      for (let start = 0; start < groups; start += refineEvery) {
        refined[row * groups + start + random.integer(Math.min(refineEvery, groups - start))] = 1;
      }
    }
  }
  const draw = (length: number, limit: (i: number) => number) =>
    Uint8Array.from({ length }, (_, i) => random.integer(limit(i)));
  return pack({
    rows,
    channels,
    refineEvery,
    refined,
    codes: draw(rows * groups * GROUP_CHANNELS, (i) => refined[Math.floor(i / GROUP_CHANNELS)] ? 16 : 4),
    scaleCodes: draw(rows * groups, () => 16),
    zeroCodes: draw(rows * groups, () => 8),
    tileScale: Float16Array.from(
      { length: Math.ceil(rows / TILE_ROWS) * groups },
      () => 0.001 * (0.5 + random.uniform()) * (random.integer(8) === 0 ? -1 : 1),
    ),
    outliers: outlierShare === 0 ? NO_OUTLIERS : randomOutliers(rows, channels, outlierShare, random),
  });
}

function randomOutliers(rows: number, channels: number, share: number, random: Random): Outliers {
  const start = new Uint32Array(rows + 1);
  const channel: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < channels; c++) if (random.uniform() < share) channel.push(c);
    start[row + 1] = channel.length;
  }
  if (channel.length === 0) return NO_OUTLIERS;
  const residual = Float16Array.from(channel, () => random.normal() * 0.05);
  return { start, channel: Uint16Array.from(channel), residual };
}

/** Activations of mixed sizes, a few large ones and whole zero groups among them. */
export function randomActivations(channels: number, seed: number): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  return Float32Array.from({ length: channels }, (_, c) => {
    const zero = Math.floor(c / GROUP_CHANNELS) % 7 === 3;
    return zero ? 0 : random.normal() * (random.integer(50) === 0 ? 30 : 1);
  });
}

/** Elements before and after an output that a kernel must leave alone: 256 bytes each. */
const RING = 64;
const POISON = 0x7fc0dead;

/** An output of `length` f32, poisoned with NaN and ringed by sentinels. */
export async function poisonedOutput(gpu: Gpu, length: number): Promise<GPUBufferBinding> {
  const buffer = await gpu.uploadStorage("output", new Uint32Array(length + 2 * RING).fill(POISON));
  return { buffer, offset: RING * 4, size: length * 4 };
}

/** Reads an output, checks that all of it and nothing beside it was written, and frees it. */
export async function readOutput(gpu: Gpu, output: GPUBufferBinding): Promise<Float32Array> {
  const words = new Uint32Array(await gpu.read(output.buffer, output.size! + RING * 8));
  gpu.destroyBuffer(output.buffer);
  const length = output.size! / 4;
  for (let i = 0; i < words.length; i++) {
    const inside = i >= RING && i < RING + length;
    if (inside === (words[i] === POISON)) {
      assert(false, `element ${i - RING} of ${length} was ${inside ? "not " : ""}written`);
    }
  }
  return new Float32Array(words.buffer, RING * 4, length);
}

/** Asserts that every element is within its bound; not-a-number fails. */
export function assertWithin(actual: ArrayLike<number>, { y, bound }: BoundedProduct, what: string): void {
  for (let i = 0; i < y.length; i++) {
    if (!(Math.abs(actual[i] - y[i]) <= bound[i])) {
      assert(false, `${what}: element ${i} is ${actual[i]}, must be ${y[i]} within ${bound[i]}`);
    }
  }
}
