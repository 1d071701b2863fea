// Random tensors, poisoned outputs and element-wise bounds for the kernel tests.
import { GROUP_CHANNELS, type RefineEvery } from "../../quant/format.ts";
import { pack } from "../../quant/pack.ts";
import type { PackedTensor } from "../../quant/packed_tensor.ts";
import { createRandom } from "../../quant/random.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { createSquareMatrix, type SquareMatrix } from "../../kernels/matrix/square_matrix.ts";
import type { BoundedProduct } from "../../kernels/matrix/bounded_product.ts";
import type { DeviceProfile } from "../../kernels/gpu/device_profile.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { assert, assertEquals } from "../assert.ts";
import { randomUnpacked } from "../quant/helpers.ts";

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

/** An H200, as Deno's WebGPU describes it. */
export const H200: DeviceProfile = {
  software: false,
  subgroupSize: 32,
  matrixUnits: false,
  multiprocessors: 132,
  workgroupBytes: 49152,
  workgroupThreads: 1024,
};

/** Mesa's software adapter. */
export const SOFTWARE: DeviceProfile = { ...H200, software: true, subgroupSize: 8, workgroupBytes: 32768 };

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

/** A packed matrix with every code, zero, scale and pick drawn at random. */
export function randomTensor({ rows, channels, refineEvery, outlierShare }: TensorCase, seed: number): PackedTensor {
  const random = createRandom(seed);
  const { tileScale, outliers, ...codes } = randomUnpacked(seed, rows, channels, refineEvery, outlierShare);
  return pack({
    ...codes,
    // As large as in models: of all finite f16 one would drown the others.
    tileScale: tileScale.map(() => 0.001 * (0.5 + random.uniform()) * (random.integer(8) === 0 ? -1 : 1)),
    outliers: { ...outliers, residual: outliers.residual.map(() => random.normal() * 0.05) },
  });
}

/** A packed matrix with so many outliers in each of its rows, spread over the channels, in place of its own. */
export function withOutliersInRows(tensor: PackedTensor, counts: readonly number[], seed: number): PackedTensor {
  const random = createRandom(seed);
  const outlierStart = new Uint32Array(tensor.rows + 1);
  for (let row = 0; row < tensor.rows; row++) outlierStart[row + 1] = outlierStart[row] + counts[row];
  const channels = counts.flatMap((count) =>
    Array.from({ length: count }, (_, i) => Math.floor((i + random.uniform()) * tensor.channels / count))
  );
  const outlierResidual = Float16Array.from(channels, () => random.normal() * 0.05);
  return { ...tensor, outlierStart, outlierChannel: Uint16Array.from(channels), outlierResidual };
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

/** Lets a device make so many more buffers, then none: as if its memory were full. Returns what ends that. */
export function limitBuffers(gpu: Gpu, count: number): () => void {
  const { createBuffer } = gpu;
  let made = 0;
  gpu.createBuffer = (label, sizeBytes, usage) =>
    made++ < count
      ? createBuffer.call(gpu, label, sizeBytes, usage)
      : Promise.reject(new OutOfMemoryError(`no room for ${label}`, sizeBytes, gpu.heldBytes));
  return () => {
    gpu.createBuffer = createBuffer;
  };
}

/**
 * Checks that what takes several buffers frees those it has made when the next one doesn't fit, whichever that is, and
 * all of them when it is destroyed.
 */
export async function assertFreedWhenFull<T>(gpu: Gpu, make: () => Promise<T>, destroy: (made: T) => void) {
  await gpu.wait(); // the device's own buffer for that stays
  const before = gpu.heldBytes;
  for (let room = 0;; room++) {
    const lift = limitBuffers(gpu, room);
    try {
      destroy(await make());
      assert(room > 1, `${room} buffers were enough, must take several`);
      assertEquals(gpu.heldBytes, before, "bytes held after destroying");
      return;
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      assertEquals(gpu.heldBytes, before, `bytes held after there was room for ${room} buffers`);
    } finally {
      lift();
    }
  }
}

/** Lets a device bind no more than so many bytes at once. Returns what ends that. */
export function limitBindings({ device }: Gpu, maxStorageBufferBindingSize: number): () => void {
  const { limits } = device;
  const get = (target: GPUSupportedLimits, name: string) =>
    name === "maxStorageBufferBindingSize" ? maxStorageBufferBindingSize : Reflect.get(target, name, target);
  // Its own property hides that of all devices.
  Object.defineProperty(device, "limits", { value: new Proxy(limits, { get }), configurable: true });
  return () => {
    delete (device as { limits?: GPUSupportedLimits }).limits;
  };
}

/** Values without an error, as an input of a CPU reference. */
export function exactly(values: ArrayLike<number>): BoundedProduct {
  return { y: Float64Array.from(values), bound: new Float64Array(values.length) };
}
