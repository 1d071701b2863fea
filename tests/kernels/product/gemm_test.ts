import { dequantize } from "../../../quant/dequantize.ts";
import { REFINE_EVERY, type RefineEvery } from "../../../quant/format.ts";
import type { DeviceProfile } from "../../../kernels/gpu/device_profile.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";
import { createRandom } from "../../../quant/random.ts";
import { f16Gemm } from "../../../kernels/product/f16_gemm.ts";
import { uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import { fewPartialsBytes, fusedFew, planFew } from "../../../kernels/product/few/fused_few.ts";
import { fusedGemm } from "../../../kernels/product/fused_gemm.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import {
  chooseTile,
  type GemmTile,
  MATRIX_FEW,
  MATRIX_TILE,
  NARROW_TILE,
  WIDE_TILE,
} from "../../../kernels/product/gemm_tile.ts";
import type { Dispatch, Gpu } from "../../../kernels/gpu/gpu.ts";
import { uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { createTokenRange, setTokenRange, type TokenRange } from "../../../kernels/tokens/token_range.ts";
import { assertEquals, assertRejects } from "../../assert.ts";
import {
  assertWithin,
  H200,
  poisonedOutput,
  randomActivations,
  randomTensor,
  readOutput,
  testGpu,
} from "../helpers.ts";
import { test } from "../../test.ts";
import { emulateMatrices } from "../emulate_matrices.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";
import { gemmOnCpu } from "./gemm_reference.ts";
import { outputOnCpu } from "./prologue_epilogue_reference.ts";

const TILES = [WIDE_TILE, NARROW_TILE, MATRIX_TILE];
/** Rows, channels, tokens. */
const CASES = [[70, 300, 3], [1, 4, 1], [33, 1028, 17], [130, 132, 130], [20, 576, 2]];

/** Cases of a tile; where matrix units are emulated, which takes seconds, the one with whole and cut tiles. */
async function casesOf(tile: GemmTile): Promise<readonly (readonly number[])[]> {
  return tile === MATRIX_TILE && !(await testGpu()).profile.matrixUnits ? [[130, 132, 130]] : CASES;
}

type Launch = (range: TokenRange, x: GPUBuffer, y: GPUBufferBinding) => Promise<Dispatch[]>;

/** Runs a product on a poisoned output whose dispatches cover some tokens more than there are. */
async function run(gpu: Gpu, rows: number, tokens: number, x: Float32Array<ArrayBuffer>, launch: Launch, more = 20) {
  const range = await createTokenRange(gpu, tokens + more);
  setTokenRange(gpu, range, tokens, 0);
  const input = await gpu.uploadStorage("x", x);
  const y = await poisonedOutput(gpu, rows * tokens);
  gpu.submit(await launch(range, input, y));
  const actual = await readOutput(gpu, y);
  gpu.destroyBuffer(input);
  gpu.destroyBuffer(range.buffer);
  return actual;
}

interface PackedCase {
  readonly refineEvery: RefineEvery;
  readonly outlierShare: number;
  readonly tile: GemmTile;
  readonly bindingBytes?: number;
}

async function checkPacked([rows, channels, tokens]: readonly number[], kind: PackedCase) {
  const gpu = await testGpu();
  emulateMatrices(gpu);
  const tensor = randomTensor({ rows, channels, ...kind }, rows + tokens);
  const x = randomActivations(channels * tokens, 9);
  const matrix = await uploadPackedMatrix(gpu, tensor, kind.bindingBytes);
  const launch: Launch = (range, x, y) => fusedGemm(gpu, matrix, { range, x, y, tile: kind.tile });
  const actual = await run(gpu, rows, tokens, x, launch);
  const expected = gemmOnCpu(dequantize(tensor), rows, channels, tokens, x, kind.tile === MATRIX_TILE);
  assertWithin(actual, expected, `${rows} x ${channels} x ${tokens}`);
  destroyMatrices(gpu, matrix);
}

for (const tile of [MATRIX_FEW, MATRIX_TILE]) {
  test(`${tile.part}: parts of the channels, inputs in f16, with and without outliers`, async () => {
    const gpu = await testGpu();
    emulateMatrices(gpu);
    const [rows, channels, tokens] = [150, 304, 19];
    const x = randomActivations(channels * tokens, 9);
    const tensor = randomTensor({ rows, channels, refineEvery: 8, outlierShare: 0.02 }, 3);
    const packed = await uploadPackedMatrix(gpu, tensor);
    const weights = randomF16(rows, channels);
    const half = await uploadF16Matrix(gpu, weights, rows, channels);
    // A part for each step of channels, more than there can be.
    const partials = await gpu.createStorage("partial sums", 4 * 10 * 128 * 152);
    const halves = await gpu.createStorage("inputs in f16", 2 * (tokens + 1) * channels);
    const inParts = (range: TokenRange, x: GPUBuffer, y: GPUBufferBinding) => ({ range, x, y, partials, halves, tile });
    assertWithin(
      await run(gpu, rows, tokens, x, (...all) => fusedGemm(gpu, packed, inParts(...all)), 1),
      gemmOnCpu(dequantize(tensor), rows, channels, tokens, x, true),
      "packed",
    );
    assertWithin(
      await run(gpu, rows, tokens, x, (...all) => f16Gemm(gpu, half, inParts(...all)), 1),
      gemmOnCpu(weights, rows, channels, tokens, x, true),
      "f16",
    );
    // As a norm or an attention that writes f16 leaves them, in sixteenths.
    gpu.write(halves, Float16Array.from(x, (value) => value / 16));
    const launch: Launch = (...all) => fusedGemm(gpu, packed, { ...inParts(...all), x: halves, unit: 16 });
    const expected = gemmOnCpu(dequantize(tensor), rows, channels, tokens, x, true);
    assertWithin(await run(gpu, rows, tokens, x, launch, 1), expected, "inputs in f16 before");
    [partials, halves].forEach((buffer) => gpu.destroyBuffer(buffer));
    destroyMatrices(gpu, packed, half);
  });
}

function randomF16(rows: number, channels: number) {
  const random = createRandom(rows + channels);
  return Float16Array.from({ length: rows * channels }, () => random.normal() * 0.1);
}

async function checkF16([rows, channels, tokens]: readonly number[], tile: GemmTile, bindingBytes?: number) {
  const gpu = await testGpu();
  emulateMatrices(gpu);
  const weights = randomF16(rows, channels);
  const x = randomActivations(channels * tokens, 7);
  const matrix = await uploadF16Matrix(gpu, weights, rows, channels, bindingBytes);
  const actual = await run(gpu, rows, tokens, x, (range, x, y) => f16Gemm(gpu, matrix, { range, x, y, tile }));
  const expected = gemmOnCpu(weights, rows, channels, tokens, x, tile === MATRIX_TILE);
  assertWithin(actual, expected, `${rows} x ${channels} x ${tokens}`);
  destroyMatrices(gpu, matrix);
}

/** Runs {@linkcode fusedFew} between sentinels, which what it leaves in between must not reach either. */
async function runFew(gpu: Gpu, tensor: PackedTensor, tokens: number, more: number, bindingBytes?: number) {
  const { rows, channels } = tensor;
  const x = randomActivations(channels * tokens, 9);
  const matrix = await uploadPackedMatrix(gpu, tensor, bindingBytes);
  const size = fewPartialsBytes(gpu, matrix, tokens + more);
  const buffer = await gpu.uploadStorage("partial sums", new Float32Array(size / 4 + 64).fill(7));
  const partials = { buffer, offset: 0, size };
  const launch: Launch = (range, x, y) => fusedFew(gpu, matrix, { range, x, y, partials });
  assertWithin(
    await run(gpu, rows, tokens, x, launch, more),
    gemmOnCpu(dequantize(tensor), rows, channels, tokens, x),
    `${rows} x ${channels} x ${tokens}`,
  );
  assertEquals(new Float32Array(await gpu.read(buffer, 256, size)), new Float32Array(64).fill(7));
  gpu.destroyBuffer(buffer);
  destroyMatrices(gpu, matrix);
}

for (const refineEvery of REFINE_EVERY) {
  test(`fused_few, refined groups ${refineEvery}: shapes, with and without outliers`, async () => {
    const gpu = await testGpu();
    for (
      const [rows, channels, tokens, more] of [[70, 300, 3, 1], [1, 4, 1, 0], [33, 1028, 7, 1], [150, 132, 37, 20]]
    ) {
      const outlierShare = tokens === 7 ? 0 : 0.02;
      await runFew(gpu, randomTensor({ rows, channels, refineEvery, outlierShare }, rows + tokens), tokens, more);
    }
  });
}

test("fused_few: several half blocks a team, slabs", async () => {
  const gpu = await testGpu();
  const tensor = randomTensor({ rows: 150, channels: 2000, refineEvery: 8, outlierShare: 0.01 }, 1);
  await runFew(gpu, tensor, 5, 3, 64 * 1024);
  // A device that workgroups come to one after the other.
  const { profile } = gpu;
  const changed: { profile: DeviceProfile } = gpu;
  changed.profile = { ...profile, multiprocessors: 0.2 };
  assertEquals(planFew(changed.profile, 150, 32, 5), { tokens: 8, run: 8, splits: 1 });
  await runFew(gpu, tensor, 5, 0);
  changed.profile = profile;
  for (const [rows, halfBlocks, tokens, plan] of FEW_PLANS) {
    assertEquals(planFew(H200, rows, halfBlocks, tokens), plan);
  }
});

/** Checks silu(gate) up of a matrix with the rows of both. */
function assertPairs(
  actual: ArrayLike<number>,
  tensor: PackedTensor,
  tokens: number,
  x: Float32Array,
  asHalves: boolean,
) {
  const { rows, channels } = tensor;
  const { y, bound } = gemmOnCpu(dequantize(tensor), rows, channels, tokens, x, asHalves);
  const outputs = rows / 2;
  for (let token = 0; token < tokens; token++) {
    const [first, end] = [token * rows, (token + 1) * rows];
    const product = { y: y.subarray(first, end), bound: bound.subarray(first, end) };
    const pairs = outputOnCpu("silu_product", product, []);
    // Sixteenths in f16 are half an ulp off, or half of the least one.
    const rounded = pairs.bound.map((value, i) => value + 2 ** -11 * (Math.abs(pairs.y[i]) + value) + 16 * 2 ** -25);
    const own = Array.from({ length: outputs }, (_, i) => actual[token * outputs + i]);
    assertWithin(own, asHalves ? { y: pairs.y, bound: rounded } : pairs, `token ${token}`);
  }
}

test("fused_few makes silu(gate) up, as its sums are added up", async () => {
  const gpu = await testGpu();
  const [rows, channels, tokens] = [152, 300, 9];
  const tensor = randomTensor({ rows, channels, refineEvery: 8, outlierShare: 0.02 }, 5);
  const x = randomActivations(channels * tokens, 9);
  const matrix = await uploadPackedMatrix(gpu, tensor);
  const partials = await gpu.createStorage("partial sums", fewPartialsBytes(gpu, matrix, tokens));
  const launch: Launch = (range, x, y) => fusedFew(gpu, matrix, { range, x, y, partials, isPair: true });
  assertPairs(await run(gpu, rows / 2, tokens, x, launch, 0), tensor, tokens, x, false);
  gpu.destroyBuffer(partials);
  destroyMatrices(gpu, matrix);
});

test("matrix_few makes silu(gate) up in f16, of an input in f16", async () => {
  const gpu = await testGpu();
  emulateMatrices(gpu);
  const [rows, channels, tokens] = [152, 304, 9];
  const tensor = randomTensor({ rows, channels, refineEvery: 8, outlierShare: 0.02 }, 5);
  const values = randomActivations(channels * tokens, 9);
  const matrix = await uploadPackedMatrix(gpu, tensor);
  const partials = await gpu.createStorage("partial sums", 4 * 5 * 16 * rows);
  const range = await createTokenRange(gpu, tokens);
  const x = await gpu.uploadStorage("x", Float16Array.from(values, (value) => value / 16));
  const y = await gpu.createStorage("y", tokens * rows);
  gpu.submit(await fusedGemm(gpu, matrix, { range, x, unit: 16, y, partials, isPair: true, tile: MATRIX_FEW }));
  const halves = new Float16Array(await gpu.read(y, tokens * rows));
  assertPairs(Float64Array.from(halves, (value) => 16 * value), tensor, tokens, values, true);
  [partials, range.buffer, x, y].forEach((buffer) => gpu.destroyBuffer(buffer));
  destroyMatrices(gpu, matrix);
});

/** Norms of rows that are off by a bound, with rms_norm's own rounding (see tests/kernels/tokens/prefill_test.ts). */
function normOnCpu({ y, bound }: BoundedProduct, weight: Float32Array, epsilon: number): BoundedProduct {
  const rows = weight.length;
  const sum = (of: (row: number) => number) => weight.reduce((total, _, row) => total + of(row), 0);
  const meanSquare = sum((row) => y[row] ** 2) / rows + epsilon;
  const factorError = sum((row) => Math.abs(y[row]) * bound[row] + bound[row] ** 2) / rows / meanSquare;
  const normed = y.map((value, row) => value / Math.sqrt(meanSquare) * weight[row]);
  return {
    y: normed,
    bound: normed.map((value, row) =>
      Math.abs(value) * (factorError + (rows / 64 + 20) * 2 ** -24) +
      bound[row] / Math.sqrt(meanSquare) * Math.abs(weight[row])
    ),
  };
}

test("fused_few norms what it adds to, as its sums are added up", async () => {
  const gpu = await testGpu();
  const [rows, channels, tokens, epsilon] = [152, 300, 9, 0.01];
  const tensor = randomTensor({ rows, channels, refineEvery: 8, outlierShare: 0.02 }, 5);
  const [x, residual] = [randomActivations(channels * tokens, 9), randomActivations(rows * tokens, 4)];
  const weight = randomActivations(rows, 6);
  const matrix = await uploadPackedMatrix(gpu, tensor);
  const partials = await gpu.createStorage("partial sums", fewPartialsBytes(gpu, matrix, tokens));
  const norm = {
    weight: await gpu.uploadStorage("weight", weight),
    epsilon,
    normed: await gpu.createStorage("normed", 4 * rows * tokens),
  };
  const y = await run(gpu, rows, tokens, x, async (range, x, y) => {
    gpu.write(y.buffer, residual, y.offset);
    return await fusedFew(gpu, matrix, { range, x, y, partials, addToY: true, norm });
  }, 0);
  const normed = await gpu.readF32(norm.normed);
  const expected = withResidual(gemmOnCpu(dequantize(tensor), rows, channels, tokens, x), residual);
  assertWithin(y, expected, "residual");
  for (let token = 0; token < tokens; token++) {
    const [first, end] = [token * rows, (token + 1) * rows];
    const own = { y: expected.y.subarray(first, end), bound: expected.bound.subarray(first, end) };
    assertWithin(normed.subarray(first, end), normOnCpu(own, weight, epsilon), `token ${token}`);
  }
  [partials, norm.weight, norm.normed].forEach((buffer) => gpu.destroyBuffer(buffer));
  destroyMatrices(gpu, matrix);
});

/** Llama-2-7B's gate and up, o and down with 16, 4 and 5 tokens. */
const FEW_PLANS = [
  [22016, 64, 16, { tokens: 16, run: 3, splits: 6 }],
  [4096, 64, 4, { tokens: 4, run: 1, splits: 16 }],
  [4096, 172, 5, { tokens: 8, run: 1, splits: 43 }],
] as const;

for (const tile of TILES) {
  for (const refineEvery of tile === MATRIX_TILE ? [8 as const] : REFINE_EVERY) {
    test(`fused_gemm ${tile.part}, refined groups ${refineEvery}: shapes, with and without outliers`, async () => {
      for (const shape of await casesOf(tile)) {
        await checkPacked(shape, { refineEvery, outlierShare: shape[2] === 17 ? 0 : 0.02, tile });
      }
    });
  }

  // Slabs are dispatches like others: those of the matrix tile differ in nothing.
  if (tile !== MATRIX_TILE) {
    test(`fused_gemm ${tile.part} splits rows over slabs`, async () => {
      const kind = { refineEvery: 8, outlierShare: 0.01, tile, bindingBytes: 64 * 1024 } as const;
      await checkPacked([150, 2000, 5], kind);
    });
  }

  test(`f16_gemm ${tile.part}: layers, odd shapes, slabs`, async () => {
    for (const shape of await casesOf(tile)) await checkF16(shape, tile);
    if (tile !== MATRIX_TILE) await checkF16([150, 500, 5], tile, 100 * 1024);
  });

  test(`f16_gemm ${tile.part} adds to y`, async () => {
    const gpu = await testGpu();
    const [rows, channels, tokens] = [37, 96, 21];
    const weights = randomF16(rows, channels);
    const x = randomActivations(channels * tokens, 3);
    const residual = randomActivations(rows * tokens, 4);
    const matrix = await uploadF16Matrix(gpu, weights, rows, channels);
    const product = gemmOnCpu(weights, rows, channels, tokens, x, tile === MATRIX_TILE);
    const actual = await run(gpu, rows, tokens, x, async (range, input, y) => {
      gpu.write(y.buffer, residual, y.offset);
      return await f16Gemm(gpu, matrix, { range, x: input, y, tile, addToY: true });
    });
    assertWithin(actual, withResidual(product, residual), "residual");
    destroyMatrices(gpu, matrix);
  });
}

function withResidual({ y, bound }: BoundedProduct, residual: Float32Array): BoundedProduct {
  return {
    y: y.map((value, i) => value + residual[i]),
    bound: bound.map((value, i) => value + 2 ** -24 * (Math.abs(y[i]) + Math.abs(residual[i]))),
  };
}

test("matrix-matrix kernels refuse channels that cannot be read in fours, and empty ranges", async () => {
  const gpu = await testGpu();
  const matrix = await uploadF16Matrix(gpu, randomF16(4, 6), 4, 6);
  const range = await createTokenRange(gpu, 4);
  const unused = await gpu.createStorage("unused", 256);
  const message = "matrix has 6 channels, must be a multiple of 4";
  await assertRejects(() => f16Gemm(gpu, matrix, { range, x: unused, y: unused }), RangeError, message);
  const set = async () => await setTokenRange(gpu, range, 5, 0);
  await assertRejects(set, RangeError, "range has 5 tokens, must have 1 to 4");
});

test("chooseTile takes the tile that was faster on an H200", () => {
  const faster = [[4096, 1, "narrow_tile"], [4096, 128, "narrow_tile"], [4096, 512, "wide_tile"], [
    22016,
    32,
    "narrow_tile",
  ]] as const;
  for (const [rows, tokens, name] of faster) assertEquals(chooseTile(H200, rows, tokens).part, name);
  for (const tokens of [64, 128, 512, 4096]) assertEquals(chooseTile(H200, 22016, tokens).part, "wide_tile");
  const withUnits = { ...H200, matrixUnits: true };
  for (const tokens of [32, 128, 512, 4096]) assertEquals(chooseTile(withUnits, 22016, tokens).part, "matrix_tile");
  assertEquals(chooseTile(withUnits, 22016, 16).part, "narrow_tile");
  assertEquals(chooseTile(withUnits, 4096, 64).part, "narrow_tile");
  assertEquals(chooseTile(withUnits, 4096, 128).part, "matrix_tile");
});
