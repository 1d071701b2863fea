import { REFINE_EVERY } from "../../../quant/format.ts";
import { dequantize } from "../../../quant/dequantize.ts";
import { uploadF16Vector } from "../../../kernels/matrix/f16_matrix.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { createDequantized, twoPassGemv } from "../../../kernels/product/two_pass_gemv.ts";
import { assert, assertEquals } from "../../assert.ts";
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
  test(`two_pass_gemv, refined groups ${refineEvery}: f16 weights to the last bit, then their product`, async () => {
    const gpu = await testGpu();
    for (const [rows, channels] of [[48, 4096], [17, 300], [1, 1], [70, 1000], [18, 576]]) {
      for (const outlierShare of [0, 0.02]) {
        const tensor = randomTensor({ rows, channels, refineEvery, outlierShare }, rows);
        const matrix = await uploadPackedMatrix(gpu, tensor);
        const scratch = await createDequantized(gpu, matrix);
        const x = randomActivations(channels, 3);
        const padded = new Float32Array(scratch.chunks * 8);
        padded.set(x);
        const vector = await uploadF16Vector(gpu, padded);
        const y = await poisonedOutput(gpu, rows);
        gpu.submit(await twoPassGemv(gpu, matrix, scratch, vector, y));
        const decoded = new Float16Array(await gpu.read(scratch.slabs[0].weights.buffer));
        const weights = withoutPadding(decoded, rows, channels);
        compareWeights(weights, dequantize(tensor), outlierShare > 0);
        const actual = await readOutput(gpu, y);
        assertWithin(actual, f16GemvOnCpu(weights, rows, exactly(Float16Array.from(x))), `${rows} x ${channels}`);
        destroyMatrices(gpu, matrix);
      }
    }
  });
}

function withoutPadding(padded: Float16Array, rows: number, channels: number): Float16Array {
  const stride = padded.length / rows;
  return Float16Array.from({ length: rows * channels }, (_, i) => {
    return padded[Math.floor(i / channels) * stride + (i % channels)];
  });
}

/** Rounding to f16 once is exact to half a unit; an outlier is added to the rounded weight and rounded again. */
function compareWeights(actual: Float16Array, expected: Float32Array, hasOutliers: boolean) {
  assertEquals(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    const slack = hasOutliers
      ? 2 ** -9 * Math.abs(expected[i]) + 2 ** -11
      : 2 ** -11 * Math.abs(expected[i]) + 2 ** -24;
    assert(Math.abs(actual[i] - expected[i]) <= slack, `weight ${i} is ${actual[i]}, must be ${expected[i]}`);
  }
}
