import { createRandom } from "../../../quant/random.ts";
import { f16Gemv, f16Several } from "../../../kernels/product/f16_gemv.ts";
import { uploadF16Matrix, uploadF16Vector } from "../../../kernels/matrix/f16_matrix.ts";
import { type Gpu, openGpu } from "../../../kernels/gpu/gpu.ts";
import { assertRejects } from "../../assert.ts";
import { assertWithin, exactly, poisonedOutput, randomActivations, readOutput, testGpu } from "../helpers.ts";
import { outputOnCpu } from "./prologue_epilogue_reference.ts";
import { test } from "../../test.ts";
import { f16GemvOnCpu } from "./gemv_reference.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

async function check(gpu: Gpu, rows: number, channels: number, bindingBytes?: number) {
  const random = createRandom(rows + channels);
  const weights = Float16Array.from({ length: rows * channels }, () => random.normal() * 0.1);
  const x = randomActivations(channels, 5);
  const matrix = await uploadF16Matrix(gpu, weights, rows, channels, bindingBytes);
  const vector = await uploadF16Vector(gpu, x);
  const y = await poisonedOutput(gpu, rows);
  gpu.submit(await f16Gemv(gpu, matrix, { kind: "half", x: vector }, { kind: "store", y }));
  const actual = await readOutput(gpu, y);
  destroyMatrices(gpu, matrix);
  gpu.destroyBuffer(vector);
  assertWithin(actual, f16GemvOnCpu(weights, rows, exactly(Float16Array.from(x))), `${rows} x ${channels}`);
}

test("f16_gemv: shapes of layers and odd shapes", async () => {
  const gpu = await testGpu();
  const shapes = [[64, 4096], [33, 11008], [1, 1], [2, 8], [3, 7], [17, 300], [101, 1000], [700, 64]];
  for (const [rows, channels] of shapes) await check(gpu, rows, channels);
});

test("f16_gemv splits rows over slabs", async () => {
  await check(await testGpu(), 200, 500, 64 * 1024);
});

test("f16_gemv without subgroups", async () => {
  const gpu = await openGpu({ withoutSubgroups: true });
  for (const [rows, channels] of [[64, 4096], [17, 300]]) await check(gpu, rows, channels);
  gpu.close();
});

async function checkSeveral(gpu: Gpu, rows: number, channels: number, tokens: number, bindingBytes?: number) {
  const random = createRandom(rows + channels);
  const weights = Float16Array.from({ length: rows * channels }, () => random.normal() * 0.1);
  const x = randomActivations(tokens * channels, 5);
  const matrix = await uploadF16Matrix(gpu, weights, rows, channels, bindingBytes);
  const input = await gpu.uploadStorage("x", x);
  const y = await poisonedOutput(gpu, tokens * rows);
  const before = randomActivations(tokens * rows, 3);
  gpu.write(y.buffer, before, y.offset);
  gpu.submit(await f16Several(gpu, matrix, input, { kind: "add", y }, tokens));
  const actual = await readOutput(gpu, y);
  destroyMatrices(gpu, matrix);
  for (let token = 0; token < tokens; token++) {
    const product = f16GemvOnCpu(weights, rows, exactly(x.subarray(token * channels, (token + 1) * channels)));
    const own = (values: Float32Array) => values.subarray(token * rows, (token + 1) * rows);
    assertWithin(own(actual), outputOnCpu("add", product, own(before)), `token ${token} of ${rows} x ${channels}`);
  }
}

test("f16_several: tokens and rows that are no fours, slabs, without subgroups", async () => {
  const gpu = await testGpu();
  for (const [rows, channels, tokens] of [[33, 1096, 4], [1, 8, 3], [18, 296, 6]]) {
    await checkSeveral(gpu, rows, channels, tokens);
  }
  await checkSeveral(gpu, 200, 504, 2, 64 * 1024);
  const withoutSubgroups = await openGpu({ withoutSubgroups: true });
  await checkSeveral(withoutSubgroups, 17, 304, 5);
  withoutSubgroups.close();
});

test("f16_gemv refuses an input that is shorter than a padded row", async () => {
  const gpu = await testGpu();
  const matrix = await uploadF16Matrix(gpu, new Float16Array(4 * 20), 4, 20);
  const x = await uploadF16Vector(gpu, new Float32Array(16));
  const y = { buffer: await gpu.createStorage("y", 16) };
  const run = () => f16Gemv(gpu, matrix, { kind: "half", x }, { kind: "store", y });
  await assertRejects(run, RangeError, "x has 32 bytes, must have 48 or more");
});
