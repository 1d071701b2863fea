import { uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import type { WeightMatrix } from "../../../kernels/product/weight_format.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { assertEquals } from "../../assert.ts";
import { assertFreedWhenFull, randomTensor, testGpu } from "../helpers.ts";
import { copyMatrix, destroyMatrices } from "../../../kernels/matrix/slabs.ts";

/** Two slabs of 64 rows and 128 channels: of 2-bit words, and of f16. */
const SLAB_BYTES = { packed: 64 * 32, f16: 64 * 256 };

/** Uploads a matrix of two slabs, and copies it, with less memory than they need. */
async function assertUploadAndCopyFreed(gpu: Gpu, upload: () => Promise<WeightMatrix>) {
  const destroy = (matrix: WeightMatrix) => destroyMatrices(gpu, matrix);
  await assertFreedWhenFull(gpu, upload, destroy);
  const matrix = await upload();
  assertEquals(matrix.slabs.length, 2);
  await assertFreedWhenFull(gpu, () => copyMatrix(gpu, matrix), destroy);
  destroy(matrix);
}

Deno.test("uploadPackedMatrix and its copy: what was uploaded is freed where memory runs out on the way", async () => {
  const gpu = await testGpu();
  const tensor = randomTensor({ rows: 128, channels: 128, refineEvery: 8, outlierShare: 0.01 }, 1);
  await assertUploadAndCopyFreed(gpu, () => uploadPackedMatrix(gpu, tensor, SLAB_BYTES.packed));
});

Deno.test("uploadF16Matrix and its copy: what was uploaded is freed where memory runs out on the way", async () => {
  const gpu = await testGpu();
  const weights = new Float16Array(128 * 128);
  await assertUploadAndCopyFreed(gpu, () => uploadF16Matrix(gpu, weights, 128, 128, SLAB_BYTES.f16));
});
