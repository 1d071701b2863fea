import { destroyF16Matrix, uploadF16Matrix } from "../../kernels/f16_matrix.ts";
import { createKeyValueCache, destroyKeyValueCache } from "../../kernels/key_value_cache.ts";
import { copyWeightMatrix, destroyWeightMatrix } from "../../kernels/linear.ts";
import { destroyPackedMatrix, uploadPackedMatrix } from "../../kernels/packed_matrix.ts";
import { assertEquals } from "../assert.ts";
import { assertFreedWhenFull, randomTensor, testGpu } from "./helpers.ts";

/** Two slabs of 64 rows and 128 channels: of 2-bit words, and of f16. */
const SLAB_BYTES = { packed: 64 * 32, f16: 64 * 256 };

Deno.test("uploadPackedMatrix and its copy: what was uploaded is freed where memory runs out on the way", async () => {
  const gpu = await testGpu();
  const tensor = randomTensor({ rows: 128, channels: 128, refineEvery: 8, outlierShare: 0.01 }, 1);
  const upload = () => uploadPackedMatrix(gpu, tensor, SLAB_BYTES.packed);
  await assertFreedWhenFull(gpu, upload, (matrix) => destroyPackedMatrix(gpu, matrix));
  const matrix = await upload();
  assertEquals(matrix.slabs.length, 2);
  await assertFreedWhenFull(
    gpu,
    () => copyWeightMatrix(gpu, matrix),
    (copy) => destroyWeightMatrix(gpu, copy),
  );
  destroyPackedMatrix(gpu, matrix);
});

Deno.test("uploadF16Matrix and its copy: what was uploaded is freed where memory runs out on the way", async () => {
  const gpu = await testGpu();
  const upload = () => uploadF16Matrix(gpu, new Float16Array(128 * 128), 128, 128, SLAB_BYTES.f16);
  await assertFreedWhenFull(gpu, upload, (matrix) => destroyF16Matrix(gpu, matrix));
  const matrix = await upload();
  assertEquals(matrix.slabs.length, 2);
  await assertFreedWhenFull(
    gpu,
    () => copyWeightMatrix(gpu, matrix),
    (copy) => destroyWeightMatrix(gpu, copy),
  );
  destroyF16Matrix(gpu, matrix);
});

Deno.test("createKeyValueCache: the keys are freed where the values don't fit", async () => {
  const gpu = await testGpu();
  const create = () => createKeyValueCache(gpu, { heads: 2, keyValueHeads: 2, headSize: 16 }, 64);
  await assertFreedWhenFull(gpu, create, (cache) => destroyKeyValueCache(gpu, cache));
});
