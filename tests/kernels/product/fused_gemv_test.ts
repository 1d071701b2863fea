import type { RefineEvery } from "../../../quant/format.ts";
import { REFINE_EVERY } from "../../../quant/format.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";
import { createRandom } from "../../../quant/random.ts";
import { fusedGemv, type FusedGemvOptions } from "../../../kernels/product/fused_gemv.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { fusedGemvOnCpu } from "../../../kernels/product/fused_gemv_reference.ts";
import { packActivations } from "../../../kernels/product/pack_activations.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import {
  assertWithin,
  poisonedOutput,
  randomActivations,
  randomTensor,
  readOutput,
  type TensorCase,
  testGpu,
  withOutliersInRows,
} from "../helpers.ts";
import { assertEquals } from "../../assert.ts";
import { test } from "../../test.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

async function check(gpu: Gpu, shape: TensorCase, seed: number, options: FusedGemvOptions = {}, bindingBytes?: number) {
  await checkTensor(gpu, randomTensor(shape, seed), seed, options, bindingBytes);
}

async function checkTensor(
  gpu: Gpu,
  tensor: PackedTensor,
  seed: number,
  options: FusedGemvOptions = {},
  bindingBytes?: number,
) {
  const { activationBits } = options;
  const packed = packActivations(randomActivations(tensor.channels, seed + 1), activationBits);
  const matrix = await uploadPackedMatrix(gpu, tensor, bindingBytes);
  const activations = await gpu.uploadStorage("activations", packed);
  const y = await poisonedOutput(gpu, tensor.rows);
  gpu.submit(await fusedGemv(gpu, matrix, { kind: "packed", activations }, { kind: "store", y }, options));
  const actual = await readOutput(gpu, y);
  destroyMatrices(gpu, matrix);
  gpu.destroyBuffer(activations);
  const { rows, channels, refineEvery } = tensor;
  assertWithin(
    actual,
    fusedGemvOnCpu(tensor, packed, activationBits),
    JSON.stringify({ rows, channels, refineEvery, ...options }),
  );
}

for (const refineEvery of REFINE_EVERY) {
  test(`fused_gemv, refined groups ${refineEvery}: shapes of layers, odd shapes, outliers`, async () => {
    const gpu = await testGpu();
    const shapes = [[64, 4096], [33, 11008], [16, 256], [17, 300], [1, 1], [5, 128], [100, 1000], [130, 2176]];
    for (const [rows, channels] of shapes) {
      for (const outlierShare of [0, 0.01]) await check(gpu, { rows, channels, refineEvery, outlierShare }, rows);
    }
  });

  test(`fused_gemv, refined groups ${refineEvery}: rows that end in half a block`, async () => {
    const gpu = await testGpu();
    const withoutSubgroups = await openGpu({ withoutSubgroups: true });
    for (const [rows, channels] of [[7, 64], [18, 192], [33, 576], [9, 2112]]) {
      await check(gpu, { rows, channels, refineEvery, outlierShare: 0.01 }, rows);
      await check(gpu, { rows, channels, refineEvery, outlierShare: 0.01 }, rows, { synchronous: true });
      await check(withoutSubgroups, { rows, channels, refineEvery, outlierShare: 0 }, rows);
    }
    withoutSubgroups.close();
  });

  test(`fused_gemv, refined groups ${refineEvery}: activations of 8 bits`, async () => {
    const gpu = await testGpu();
    for (const [rows, channels] of [[64, 4096], [17, 300], [1, 1], [18, 192]]) {
      for (const outlierShare of [0, 0.01]) {
        await check(gpu, { rows, channels, refineEvery, outlierShare }, rows, { activationBits: 8 });
      }
    }
  });

  test(`fused_gemv in order, refined groups ${refineEvery}`, async () => {
    const gpu = await testGpu();
    for (const [rows, channels] of [[40, 4096], [33, 11008], [17, 300], [1, 1]]) {
      await check(gpu, { rows, channels, refineEvery, outlierShare: 0.01 }, rows, { synchronous: true });
    }
  });

  test(`fused_gemv with outliers, refined groups ${refineEvery}`, async () => {
    const gpu = await testGpu();
    // Up to more passes over the rows' slots than are asked for at once; rows with more outliers than slots.
    const cases = [[40, 4096, 0.001], [33, 11008, 0.01], [17, 300, 0.05], [1, 1, 1], [200, 256, 0.2], [300, 128, 0]];
    for (const [rows, channels, outlierShare] of cases) {
      const shape = { rows, channels, refineEvery, outlierShare };
      for (const workgroups of [1, 4]) await check(gpu, shape, rows, { workgroups });
    }
  });
}

test("fused_gemv: rows of no outliers, as many as slots, and many more; no outliers in a slab", async () => {
  const gpu = await testGpu();
  const withoutSubgroups = await openGpu({ withoutSubgroups: true });
  // Counts of a row, the slots that they make, and whether rows have more.
  const cases = [
    [() => 4, 4, false],
    [() => 5, 8, false],
    [(row: number) => [0, 4, 4, 1][row % 4], 4, false],
    [(row: number) => [0, 2, 2, 2, 2, 2, 2, 90][row % 8], 4, true],
    [(row: number) => row === 77 ? 256 : 0, 4, true],
    [(row: number) => row < 64 ? 0 : 3, 4, false],
  ] as const;
  for (const [i, [countOf, slots, hasBeyond]] of cases.entries()) {
    const plain = randomTensor({ rows: 150, channels: 400, refineEvery: REFINE_EVERY[i], outlierShare: 0 }, i);
    const tensor = withOutliersInRows(plain, Array.from({ length: 150 }, (_, row) => countOf(row)), i);
    const matrix = await uploadPackedMatrix(gpu, tensor);
    const [slab] = matrix.slabs;
    assertEquals([slab.slots, slab.hasBeyond], [slots, hasBeyond], `case ${i}`);
    destroyMatrices(gpu, matrix);
    for (const workgroups of [1, 7]) await checkTensor(gpu, tensor, i, { workgroups });
    await checkTensor(gpu, tensor, i, { synchronous: true }, 64 * 112);
    await checkTensor(withoutSubgroups, tensor, i);
  }
  withoutSubgroups.close();
});

test("fused_gemv without subgroups", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  for (const [rows, channels] of [[40, 4096], [17, 300], [33, 11008]]) {
    await check(gpu, { rows, channels, refineEvery: 8, outlierShare: 0.005 }, rows);
  }
  gpu.close();
});

test("fused_gemv splits rows over slabs and channels over dispatches", async () => {
  const gpu = await testGpu();
  const shape: TensorCase = { rows: 150, channels: 4096, refineEvery: 8, outlierShare: 0.002 };
  await check(gpu, shape, 1, {}, 64 * 1024);
  await check(gpu, { ...shape, rows: 20, channels: 28672 }, 2, { teams: 4 });
  for (const workgroups of [1, 3, 1000]) await check(gpu, shape, 3, { workgroups });
});

test("fused_gemv for small batches, over slabs and dispatches too", async () => {
  const gpu = await testGpu();
  for (const [rows, channels, tokens] of [[40, 300, 2], [150, 1000, 3], [20, 4096, 16]]) {
    const tensor = randomTensor({ rows, channels, refineEvery: 8, outlierShare: 0.01 }, tokens);
    const packed = Array.from({ length: tokens }, (_, token) => packActivations(randomActivations(channels, token)));
    const matrix = await uploadPackedMatrix(gpu, tensor, rows === 150 ? 32 * 1024 : undefined);
    const all = new Uint32Array(packed.flatMap((words) => Array.from(words)));
    const activations = await gpu.uploadStorage("activations", all);
    const y = await poisonedOutput(gpu, rows * tokens);
    gpu.submit(
      await fusedGemv(gpu, matrix, { kind: "packed", activations }, { kind: "store", y }, { tokens, teams: 8 }),
    );
    const actual = await readOutput(gpu, y);
    for (const [token, words] of packed.entries()) {
      const own = actual.subarray(token * rows, (token + 1) * rows);
      assertWithin(own, fusedGemvOnCpu(tensor, words), `token ${token} of ${rows} x ${channels}`);
    }
    destroyMatrices(gpu, matrix);
  }
});

test("fused_gemv: 1,000 random small matrices", async () => {
  const gpu = await testGpu();
  const random = createRandom(7);
  for (let i = 0; i < 50; i++) {
    const refineEvery: RefineEvery = REFINE_EVERY[random.integer(REFINE_EVERY.length)];
    const shape = { rows: 1 + random.integer(40), channels: 1 + random.integer(400), refineEvery };
    await check(gpu, { ...shape, outlierShare: 0.02 }, i);
    for (let j = 1; j < 20; j++) await check(gpu, { ...shape, outlierShare: 0 }, 100 * i + j);
  }
});
