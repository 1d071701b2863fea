import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import {
  type PackedMatrix,
  planesOf,
  readPackedMatrix,
  uploadPackedMatrix,
} from "../../../kernels/matrix/packed_matrix.ts";
import { type LayerArena, sharePlanes } from "../../../kernels/matrix/share_planes.ts";
import { REFINE_EVERY } from "../../../quant/format.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import { assertSameTensor } from "../../quant/helpers.ts";
import { limitBindings, limitBuffers, randomTensor, testGpu } from "../helpers.ts";
import { copyMatrix, destroyMatrices } from "../../../kernels/matrix/slabs.ts";

/** Of several sizes, none of whose planes fills 256 bytes to the last; with outliers in some, no refined group in one. */
const TENSORS: readonly PackedTensor[] = [
  randomTensor({ rows: 20, channels: 80, refineEvery: 8, outlierShare: 0 }, 1),
  randomTensor({ rows: 36, channels: 300, refineEvery: 8, outlierShare: 0.02 }, 2),
  randomTensor({ rows: 4, channels: 128, refineEvery: "none", outlierShare: 0 }, 3),
  randomTensor({ rows: 100, channels: 144, refineEvery: 2, outlierShare: 0.01 }, 4),
  randomTensor({ rows: 36, channels: 576, refineEvery: 8, outlierShare: 0 }, 5),
  randomTensor({ rows: 20, channels: 192, refineEvery: 16, outlierShare: 0 }, 6),
];

async function uploadAll(gpu: Gpu): Promise<PackedMatrix[]> {
  const matrices: PackedMatrix[] = [];
  for (const tensor of TENSORS) matrices.push(await uploadPackedMatrix(gpu, tensor));
  return matrices;
}

/** Places of the planes base, meta and tileScale of the first slab. */
function alikeOffsets({ slabs: [{ base, meta, tileScale }] }: PackedMatrix): number[] {
  return [base, meta, tileScale].map(({ offset }) => offset);
}

/** Bytes of each plane of each matrix. */
async function contents(gpu: Gpu, matrices: readonly PackedMatrix[]): Promise<Uint8Array[]> {
  const read: Uint8Array[] = [];
  for (const { buffer, offset, size } of matrices.flatMap(({ slabs }) => slabs.flatMap(planesOf))) {
    read.push(new Uint8Array(await gpu.read(buffer, size, offset)));
  }
  return read;
}

/** One layer of all these matrices, its planes shared. */
async function share(
  gpu: Gpu,
  matrices: readonly PackedMatrix[],
): Promise<LayerArena & { shared: readonly PackedMatrix[] }> {
  const arena = await sharePlanes(gpu, [matrices]);
  assert(arena, "planes are shared");
  return { ...arena, shared: arena.layers[0] };
}

function free(gpu: Gpu, { buffers }: LayerArena): void {
  for (const buffer of buffers) gpu.destroyBuffer(buffer);
}

const padded = (bytes: number) => Math.ceil(bytes / 256) * 256;

Deno.test("sharePlanes: one buffer a plane, in which each matrix keeps its own content, and as much memory as they take", async () => {
  const gpu = await testGpu();
  const own = await uploadAll(gpu);
  const before = await contents(gpu, own);
  const held = gpu.heldBytes;
  const arena = await share(gpu, own);
  const { shared, offsets, strides, buffers } = arena;
  const planes = shared.map(({ slabs }) => planesOf(slabs[0]));
  for (const [name, plane] of planes[0].entries()) {
    const ranges = planes.map((of) => of[name]);
    assert(ranges.every(({ buffer }) => buffer === plane.buffer), "one buffer");
    for (const [i, { offset }] of ranges.entries()) {
      assertEquals(offset % 256, 0, "bindings start at multiples of 256");
      const end = i + 1 < ranges.length ? ranges[i + 1].offset : plane.buffer.size;
      assertEquals(end - offset, padded(ranges[i].size), "one after the other");
    }
  }
  assertEquals(planes[0].map(({ buffer }) => buffer), buffers);
  assertEquals(new Set(buffers).size, 5);
  assertEquals(offsets, shared.map(alikeOffsets));
  assertEquals(strides, [0, 2, 3].map((plane) => buffers[plane].size));
  const ownBytes = before.reduce((sum, { length }) => sum + length, 0);
  const sharedBytes = before.reduce((sum, { length }) => sum + padded(length), 0);
  assertEquals(gpu.heldBytes - held, sharedBytes - ownBytes);
  assertEquals(await contents(gpu, shared), before);
  for (const [i, tensor] of TENSORS.entries()) {
    if (tensor.outlierStart.length === 0) assertSameTensor(await readPackedMatrix(gpu, shared[i]), tensor);
  }
  free(gpu, arena);
  assertEquals(gpu.heldBytes, held - ownBytes);
});

Deno.test("sharePlanes: layers that are alike lie a stride apart, with their matrices at the same places", async () => {
  const gpu = await testGpu();
  const layers = [[], []] as PackedMatrix[][];
  for (const [i, layer] of layers.entries()) {
    for (const rows of [20, 36]) {
      layer.push(
        await uploadPackedMatrix(
          gpu,
          randomTensor({ rows, channels: 144, refineEvery: REFINE_EVERY[2 + i], outlierShare: 0.01 * i }, rows),
        ),
      );
    }
  }
  const before = await contents(gpu, layers.flat());
  const arena = await sharePlanes(gpu, layers);
  assert(arena, "planes are shared");
  assertEquals(await contents(gpu, arena.layers.flat()), before);
  for (const [l, layer] of arena.layers.entries()) {
    for (const [m, matrix] of layer.entries()) {
      const expected = arena.strides.map((stride, i) => l * stride + arena.offsets[m][i]);
      assertEquals(alikeOffsets(matrix), expected);
    }
  }
  free(gpu, arena);
});

Deno.test("sharePlanes: matrices stay as they are where a plane can't be bound, one lies in slabs or layers differ", async () => {
  const gpu = await testGpu();
  const own = await uploadAll(gpu);
  const held = gpu.heldBytes;
  const baseBytes = own.reduce((sum, { slabs: [{ base }] }) => sum + padded(base.size), 0);
  for (const [limit, isShared] of [[baseBytes - 256, false], [baseBytes, true]] as const) {
    const lift = limitBindings(gpu, limit);
    const arena = await sharePlanes(gpu, [own]).finally(lift);
    assertEquals(arena !== undefined, isShared, `with bindings of ${limit} bytes`);
    if (arena) free(gpu, arena);
    else assertEquals(gpu.heldBytes, held);
  }
  const slabs = await uploadPackedMatrix(gpu, TENSORS[3], 64 * 64);
  assert(slabs.slabs.length > 1);
  const more = [await uploadPackedMatrix(gpu, TENSORS[0]), slabs];
  assertEquals(await sharePlanes(gpu, [more]), undefined);
  assertEquals(await sharePlanes(gpu, [more.slice(0, 1), more.slice(1)]), undefined);
  destroyMatrices(gpu, ...more);
});

Deno.test("sharePlanes: where memory runs out on the way the matrices still have their own planes", async () => {
  const gpu = await testGpu();
  const own = await uploadAll(gpu);
  const before = await contents(gpu, own);
  const held = gpu.heldBytes;
  for (let room = 0; room < 5; room++) {
    const lift = limitBuffers(gpu, room);
    await assertRejects(() => sharePlanes(gpu, [own]).finally(lift), OutOfMemoryError);
    assertEquals(gpu.heldBytes, held, `bytes held after there was room for ${room} buffers`);
  }
  assertEquals(await contents(gpu, own), before);
  destroyMatrices(gpu, ...own);
});

Deno.test("copyMatrix: the copy of a matrix with shared planes has its own, no larger, that outlive the others", async () => {
  const gpu = await testGpu();
  const own = await uploadAll(gpu);
  const before = await contents(gpu, own);
  const start = gpu.heldBytes - before.reduce((sum, { length }) => sum + length, 0);
  const arena = await share(gpu, own);
  const { shared } = arena;
  const held = gpu.heldBytes;
  const copies: PackedMatrix[] = [];
  for (const matrix of shared) {
    const copy = await copyMatrix(gpu, matrix);
    assert(copy.kind === "packed");
    copies.push(copy);
  }
  assertEquals(gpu.heldBytes - held, before.reduce((sum, { length }) => sum + length, 0));
  free(gpu, arena);
  for (const { offset, buffer, size } of copies.flatMap(({ slabs }) => planesOf(slabs[0]))) {
    assertEquals([offset, buffer.size], [0, size]);
  }
  assertEquals(await contents(gpu, copies), before);
  destroyMatrices(gpu, ...copies);
  assertEquals(gpu.heldBytes, start);
});
