import { REFINE_EVERY } from "../../../quant/format.ts";
import { uploadF16Vector } from "../../../kernels/matrix/f16_matrix.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { createScales, decodeScalesOnGpu, threePassGemv } from "../../../kernels/product/three_pass_gemv.ts";
import { decodeScalesOnCpu, decodeWeightsOnCpu } from "./three_pass_reference.ts";
import { createDequantized } from "../../../kernels/product/two_pass_gemv.ts";
import { assertRejects } from "../../assert.ts";
import {
  assertWithin,
  exactly,
  poisonedOutput,
  randomActivations,
  randomTensor,
  readOutput,
  testGpu,
} from "../helpers.ts";
import { test } from "../../test.ts";
import { f16GemvOnCpu } from "./gemv_reference.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

for (const refineEvery of REFINE_EVERY) {
  test(`three_pass_gemv, refined groups ${refineEvery}: scales, weights and their product`, async () => {
    const gpu = await testGpu();
    for (const [rows, channels] of [[48, 4096], [17, 300], [1, 1], [33, 576]]) {
      const tensor = randomTensor({ rows, channels, refineEvery, outlierShare: 0 }, rows);
      const matrix = await uploadPackedMatrix(gpu, tensor);
      const scratch = { scales: await createScales(gpu, matrix), weights: await createDequantized(gpu, matrix) };
      gpu.write(scratch.scales, new Uint32Array(scratch.scales.size / 4).fill(0x7e007e00)); // not-a-numbers
      const x = new Float32Array(scratch.weights.chunks * 8);
      x.set(randomActivations(channels, 3));
      const y = await poisonedOutput(gpu, rows);
      const passes = await threePassGemv(gpu, matrix, scratch, await uploadF16Vector(gpu, x), y);
      gpu.submit([...passes.secondOrder, ...passes.firstOrder, ...passes.multiply]);
      const what = `${rows} x ${channels}`;
      const scales = new Float16Array(await gpu.read(scratch.scales));
      assertWithin(scales, decodeScalesOnCpu(tensor), `scales of ${what}`);
      const weights = new Float16Array(await gpu.read(scratch.weights.slabs[0].weights.buffer));
      assertWithin(weights, decodeWeightsOnCpu(tensor, scales), `weights of ${what}`);
      assertWithin(await readOutput(gpu, y), f16GemvOnCpu(weights, rows, exactly(Float16Array.from(x))), what);
      destroyMatrices(gpu, matrix, scratch.weights);
      gpu.destroyBuffer(scratch.scales);
    }
  });
}

test("decodeScalesOnGpu refuses a matrix of several slabs", async () => {
  const gpu = await testGpu();
  const tensor = randomTensor({ rows: 150, channels: 4096, refineEvery: 8, outlierShare: 0 }, 1);
  const matrix = await uploadPackedMatrix(gpu, tensor, 64 * 1024);
  const scales = await createScales(gpu, matrix);
  await assertRejects(() => decodeScalesOnGpu(gpu, matrix, scales), RangeError, "must be one");
  destroyMatrices(gpu, matrix);
});
