import { type BufferScope, createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { factorize } from "../../../kernels/quantize/factorize.ts";
import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { readPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import {
  type DeviceKnowledge,
  type DeviceSettings,
  orderDrift,
  quantizeMatrixOnDevice,
} from "../../../kernels/quantize/quantize_matrix.ts";
import { dequantize } from "../../../quant/dequantize.ts";
import { type FeedbackSettings, prepareFeedback } from "../../../quant/error_feedback.ts";
import { REFINE_EVERY, type RefineEvery } from "../../../quant/format.ts";
import { unpack } from "../../../quant/pack.ts";
import { type PackedTensor, validatePackedTensor } from "../../../quant/packed_tensor.ts";
import { shiftToTarget } from "../../../quant/target.ts";
import { quantizeTwobit } from "../../../quant/twobit.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { correlatedHessian, normals, SETTINGS } from "../../quant/helpers.ts";
import { test } from "../../test.ts";
import { testGpu, uploadSquare } from "../helpers.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

const FEEDBACK: FeedbackSettings = { damping: 0.1, order: "groups" };

interface Matrix {
  readonly weights: Float32Array<ArrayBuffer>;
  readonly rows: number;
  readonly channels: number;
}

interface Correlations {
  readonly hessian: Float64Array<ArrayBuffer>;
  /** f32 [channels, channels]. */
  readonly drift?: Float32Array<ArrayBuffer>;
  /** f32 [channels, rows]. */
  readonly correlation?: Float32Array<ArrayBuffer>;
  /** Of the Hessian; default: the device's. */
  readonly maxBindingBytes?: number;
}

async function uploadKnowledge(
  gpu: Gpu,
  scope: BufferScope,
  { hessian, drift, correlation, maxBindingBytes }: Correlations,
): Promise<DeviceKnowledge> {
  const square = await uploadSquare(gpu, scope, Float32Array.from(hessian), maxBindingBytes);
  const factor = await factorize(gpu, scope, square, FEEDBACK);
  const ordered = drift && await scope.upload("drift", drift);
  if (ordered) await orderDrift(gpu, scope, factor, ordered);
  return {
    factor,
    ...(ordered && { drift: ordered }),
    ...(correlation && { correlation: await scope.upload("correlation", correlation) }),
  };
}

async function quantizeOnGpu(
  { weights, rows, channels }: Matrix,
  settings: RefineEvery | DeviceSettings,
  correlations?: Correlations,
): Promise<PackedTensor> {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const knowledge = correlations && await uploadKnowledge(gpu, scope, correlations);
  const given = typeof settings === "object" ? settings : { refineEvery: settings };
  const matrix = await quantizeMatrixOnDevice(gpu, [rows, channels], weights, given, knowledge);
  const tensor = await readPackedMatrix(gpu, matrix);
  destroyMatrices(gpu, matrix);
  return tensor;
}

/** What the GPU chose otherwise than the CPU. */
interface Differences {
  /** Groups with other codes but equal picks and second-order scales. */
  codes: number;
  /** Second-order scales that differ. */
  scales: number;
  /** Rows and runs of another refined group. */
  picks: number;
}

/**
 * Counts where two results differ and checks that they differ only where errors tie: a group's squared error as the GPU
 * rounds it is above the CPU's by at most what f32 sums of 16 terms lose, and a second-order scale by one unit in its
 * last place.
 */
function compare({ weights, rows, channels }: Matrix, gpu: PackedTensor, cpu: PackedTensor): Differences {
  const [a, b] = [unpack(gpu), unpack(cpu)];
  const [decodedA, decodedB] = [dequantize(gpu), dequantize(cpu)];
  const groups = a.refined.length / rows;
  const found: Differences = { codes: 0, scales: 0, picks: 0 };
  for (let i = 0; i < a.tileScale.length; i++) {
    if (a.tileScale[i] === b.tileScale[i]) continue;
    assert(Math.abs(a.tileScale[i] / b.tileScale[i] - 1) <= 2 ** -9, `d ${i}: ${a.tileScale[i]}, ${b.tileScale[i]}`);
    found.scales++;
  }
  for (let index = 0; index < a.refined.length; index++) {
    const [row, group] = [Math.floor(index / groups), index % groups];
    if (a.refined[index] !== b.refined[index]) {
      found.picks++;
      continue;
    }
    const tile = Math.floor(row / 16) * groups + group;
    if (a.tileScale[tile] !== b.tileScale[tile]) continue;
    const first = row * channels + group * 16;
    const errors = [0, 0];
    let size = 0;
    let differs = a.scaleCodes[index] !== b.scaleCodes[index] || a.zeroCodes[index] !== b.zeroCodes[index];
    for (let i = first; group * 16 < channels && i < first + 16; i++) {
      differs ||= decodedA[i] !== decodedB[i];
      errors[0] += (weights[i] - decodedA[i]) ** 2;
      errors[1] += (weights[i] - decodedB[i]) ** 2;
      size += weights[i] ** 2;
    }
    if (!differs) continue;
    found.codes++;
    const slack = 2 ** -19 * errors[1] + 2 ** -22 * Math.sqrt(errors[1] * size);
    assert(errors[0] <= errors[1] + slack, `row ${row}, group ${group}: error ${errors[0]}, must be ${errors[1]}`);
  }
  return found;
}

const mixed = (rows: number, channels: number): Matrix => {
  const weights = normals(rows + channels, rows * channels, 0.02);
  // A constant row, a row of zeros, a one-sided row, a loud weight.
  weights.fill(0.013, channels, 2 * channels);
  weights.fill(0, 2 * channels, 3 * channels);
  for (let i = 3 * channels; i < 4 * channels; i++) weights[i] = Math.abs(weights[i]) + 0.01;
  weights[4 * channels + 5] = 3;
  return { weights, rows, channels };
};

test("quantizeMatrixOnDevice without a Hessian: bit for bit the CPU's, at every density and shape", async () => {
  const shapes = [[64, 256], [36, 144], [128, 512], [20, 400], [16, 16], [48, 128]] as const;
  // Rows that end in half a block at every density too.
  const cases = REFINE_EVERY.flatMap((refineEvery, i) => [[refineEvery, shapes[i]], [refineEvery, [20, 192]]] as const);
  for (const [i, [refineEvery, [rows, channels]]] of cases.entries()) {
    const matrix = { weights: normals(i + 1, rows * channels, 0.02), rows, channels };
    const gpu = await quantizeOnGpu(matrix, refineEvery);
    validatePackedTensor(gpu);
    const cpu = quantizeTwobit(matrix.weights, rows, channels, { ...SETTINGS, refineEvery });
    // Measured: no difference in these shapes; one in ten thousand groups may tie on another device.
    const { codes, scales, picks } = compare(matrix, gpu, cpu);
    assert(codes + scales + picks <= 1 + rows * channels / 16 / 10000, `${refineEvery}: ${codes}, ${scales}, ${picks}`);
  }
});

test("quantizeMatrixOnDevice, channels weighed: the CPU's picks and codes but where errors tie", async () => {
  const gpu = await testGpu();
  for (const [rows, channels, refineEvery] of [[64, 256, 8], [36, 144, 4], [20, 400, 16]] as const) {
    const weights = normals(rows, rows * channels, 0.02);
    const channelWeights = Float64Array.from({ length: channels }, (_, i) => i === 20 ? 5000 : 0.1 + (i * 37) % 11);
    const matrix = await quantizeMatrixOnDevice(gpu, [rows, channels], weights, { refineEvery }, { channelWeights });
    const onDevice = unpack(await readPackedMatrix(gpu, matrix));
    destroyMatrices(gpu, matrix);
    const settings = { ...SETTINGS, refineEvery, pick: "error_hessian" } as const;
    const onCpu = unpack(quantizeTwobit(weights, rows, channels, settings, { channelWeights }));
    const plain = unpack(quantizeTwobit(weights, rows, channels, { ...SETTINGS, refineEvery }));
    for (const plane of ["refined", "tileScale", "scaleCodes", "zeroCodes", "codes"] as const) {
      // Measured: no difference in these shapes.
      assertEquals(onDevice[plane], onCpu[plane], plane);
    }
    for (const plane of ["refined", "scaleCodes"] as const) assert(plain[plane].some((x, i) => x !== onCpu[plane][i]));
  }
});

test("quantizeMatrixOnDevice, degenerate rows: zeros stay zero, differences from the CPU are ties", async () => {
  for (const refineEvery of REFINE_EVERY) {
    const matrix = mixed(48, 272);
    const gpu = await quantizeOnGpu(matrix, refineEvery);
    validatePackedTensor(gpu);
    const cpu = quantizeTwobit(matrix.weights, 48, 272, { ...SETTINGS, refineEvery });
    const { codes, scales, picks } = compare(matrix, gpu, cpu);
    // The constant row's candidates tie by construction: its 17 groups may have other codes, and so its picks.
    assert(codes + scales + picks <= 40, `${refineEvery}: ${codes} codes, ${scales} scales, ${picks} picks`);
    assert(dequantize(gpu).subarray(2 * 272, 3 * 272).every((value) => value === 0));
  }
  const zeros = { weights: new Float32Array(32 * 128), rows: 32, channels: 128 };
  assertEquals(await quantizeOnGpu(zeros, 8), quantizeTwobit(zeros.weights, 32, 128, SETTINGS));
  const tiny = { weights: normals(1, 16 * 128, 1e-30), rows: 16, channels: 128 };
  assert(dequantize(await quantizeOnGpu(tiny, 8)).every((value) => value === 0));
});

test("quantizeMatrixOnDevice: a scale beyond f16 is infinite, other shapes are refused", async () => {
  // From 1e19 on the squares of weights overflow.
  for (const size of [1e7, 1e18, 1e20, 1e37]) {
    const huge = { weights: normals(1, 16 * 128, size), rows: 16, channels: 128 };
    const { tileScale } = await quantizeOnGpu(huge, 8);
    assert(tileScale.every((d) => d === Infinity), `weights of ${size}`);
  }
  const one = normals(1, 16 * 128, 0.02);
  one[100] = -1e37;
  const { tileScale } = await quantizeOnGpu({ weights: one, rows: 16, channels: 128 }, 8);
  assertEquals(tileScale.findIndex((d) => d === Infinity), Math.floor(100 / 16));
  const odd = { weights: new Float32Array(16 * 40), rows: 16, channels: 40 };
  await assertRejects(() => quantizeOnGpu(odd, 8), RangeError, "multiple of 16");
});

/** Sum over rows of (w - q) H (w - q)ᵀ. */
function objective({ weights, rows, channels }: Matrix, tensor: PackedTensor, hessian: Float64Array): number {
  const decoded = dequantize(tensor);
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const error = decoded.subarray(row * channels, (row + 1) * channels).map((value, i) =>
      value - weights[row * channels + i]
    );
    for (let i = 0; i < channels; i++) {
      for (let j = 0; j < channels; j++) total += error[i] * hessian[i * channels + j] * error[j];
    }
  }
  return total;
}

/** Share of groups whose decoded weights are equal. */
function equalShare(a: PackedTensor, b: PackedTensor): number {
  let equal = 0;
  const [x, y] = [dequantize(a), dequantize(b)];
  for (let i = 0; i < x.length; i++) if (x[i] === y[i]) equal++;
  return equal / x.length;
}

test("quantizeMatrixOnDevice with feedback: the CPU's codes but for a few, and its objective", async () => {
  // The last one has more channels than a stretch of carried errors.
  for (const [rows, channels, refineEvery] of [[64, 272, 8], [36, 48, 4], [16, 128, "none"], [16, 1152, 8]] as const) {
    const matrix = { weights: normals(rows, rows * channels, 0.02), rows, channels };
    const hessian = correlatedHessian(channels, channels);
    const gpu = await quantizeOnGpu(matrix, refineEvery, { hessian });
    validatePackedTensor(gpu);
    const feedback = prepareFeedback(hessian, FEEDBACK);
    const cpu = quantizeTwobit(matrix.weights, rows, channels, { ...SETTINGS, refineEvery }, { feedback });
    assert(equalShare(gpu, cpu) > 0.9, `${equalShare(gpu, cpu)} of the weights are equal`);
    const ratio = objective(matrix, gpu, hessian) / objective(matrix, cpu, hessian);
    assert(ratio > 0.99 && ratio < 1.01, `objective is ${ratio} of the CPU's`);
  }
});

test("quantizeMatrixOnDevice with outliers, without a Hessian: the CPU's planes by every rule and in every group", async () => {
  const cases = [
    { rule: "error", groups: "two_bit", share: 0.005, refineEvery: 8 },
    { rule: "error", groups: "four_bit", share: 0.002, refineEvery: 4 },
    { rule: "magnitude", groups: "both", share: 0.01, refineEvery: 16 },
    // More than there are groups that may have one: all of these have.
    { rule: "error", groups: "two_bit", share: 0.05, refineEvery: 2 },
    { rule: "magnitude", groups: "two_bit", share: 0.004, refineEvery: "none" },
  ] as const;
  for (const [i, { refineEvery, ...outliers }] of cases.entries()) {
    // The last tile of the second has 4 rows.
    const [rows, channels] = [[64, 272], [36, 144], [48, 256], [16, 128], [32, 512]][i];
    const weights = normals(i + 1, rows * channels, 0.02);
    const settings = { ...SETTINGS, refineEvery, outliers };
    const gpu = await quantizeOnGpu({ weights, rows, channels }, settings);
    validatePackedTensor(gpu);
    const cpu = quantizeTwobit(weights, rows, channels, settings);
    assert(cpu.outlierChannel.length > 0);
    // Measured: no difference in these shapes.
    assertEquals(gpu, cpu, `${rows} x ${channels}`);
  }
});

test("quantizeMatrixOnDevice, outliers of degenerate rows: first rows first among equals, none in constant groups", async () => {
  const [rows, channels] = [16, 128];
  const weights = new Float32Array(rows * channels);
  // The same group in every row, beside constant ones.
  const group = normals(2, 16, 0.02);
  group[3] = 0.4;
  for (let row = 0; row < rows; row++) weights.set(group, row * channels + 32);
  const outliers = { share: 3 / (rows * channels), groups: "both", rule: "error" } as const;
  const settings = { ...SETTINGS, outliers };
  const gpu = await quantizeOnGpu({ weights, rows, channels }, settings);
  assertEquals(gpu, quantizeTwobit(weights, rows, channels, settings));
  assertEquals([...gpu.outlierStart.subarray(0, 5)], [0, 1, 2, 3, 3]);
  assertEquals([...gpu.outlierChannel], [35, 35, 35]);
  weights[35] = 1e6;
  const { outlierResidual } = await quantizeOnGpu({ weights, rows, channels }, settings);
  assert(outlierResidual.some((residual) => !Number.isFinite(residual)));
});

test("quantizeMatrixOnDevice with outliers and feedback: the CPU's codes but for a few, and its objective", async () => {
  for (const groups of ["two_bit", "four_bit", "both"] as const) {
    const [rows, channels] = [48, 272];
    const matrix = { weights: normals(rows, rows * channels, 0.02), rows, channels };
    const hessian = correlatedHessian(channels, channels);
    const settings = { ...SETTINGS, outliers: { share: 0.005, groups, rule: "error" as const } };
    const gpu = await quantizeOnGpu(matrix, settings, { hessian });
    validatePackedTensor(gpu);
    const feedback = prepareFeedback(hessian, FEEDBACK);
    const cpu = quantizeTwobit(matrix.weights, rows, channels, settings, { feedback });
    for (const plane of ["outlierStart", "outlierChannel", "tileScale"] as const) assertEquals(gpu[plane], cpu[plane]);
    assert(equalShare(gpu, cpu) > 0.9, `${equalShare(gpu, cpu)} of the weights are equal`);
    const ratio = objective(matrix, gpu, hessian) / objective(matrix, cpu, hessian);
    assert(ratio > 0.99 && ratio < 1.01, `objective is ${ratio} of the CPU's`);
    const without = quantizeTwobit(matrix.weights, rows, channels, SETTINGS, { feedback });
    assert(objective(matrix, gpu, hessian) < objective(matrix, without, hessian), "outliers don't help");
  }
});

test("quantizeMatrixOnDevice: picks that are given are taken", async () => {
  const [rows, channels] = [32, 256];
  const weights = normals(3, rows * channels, 0.02);
  for (const pick of ["range", "random", "strip"] as const) {
    const settings = { ...SETTINGS, pick };
    const cpu = quantizeTwobit(weights, rows, channels, settings);
    const { refined } = unpack(cpu);
    const picks = new Uint32Array(2 * rows);
    refined.forEach((flag, at) => {
      const [row, group] = [Math.floor(at / 16), at % 16];
      if (flag === 1) picks[Math.floor(group / 8) * rows + row] = group % 8;
    });
    assertEquals(await quantizeOnGpu({ weights, rows, channels }, { refineEvery: 8, picks }), cpu);
  }
});

test("quantizeMatrixOnDevice: feedback in an order that splits groups is refused", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const square = await uploadSquare(gpu, scope, Float32Array.from(correlatedHessian(1, 32)));
  const factor = await factorize(gpu, scope, square, { damping: 0.1, order: "channels" });
  const weights = normals(1, 16 * 32, 0.02);
  const split = () => quantizeMatrixOnDevice(gpu, [16, 32], weights, { refineEvery: 8 }, { factor });
  await assertRejects(split, RangeError, "must be natural or groups");
});

test("quantizeMatrixOnDevice with corrected targets: the CPU's objective towards the same target", async () => {
  const [rows, channels] = [32, 144];
  const matrix = { weights: normals(5, rows * channels, 0.02), rows, channels };
  const hessian = correlatedHessian(7, channels);
  const drift = normals(8, channels * channels, 0.02 * hessian[0]);
  const correlation = Float32Array.from({ length: rows * channels }, (_, at) => {
    const [row, n] = [Math.floor(at / channels), at % channels];
    let sum = 0;
    for (let k = 0; k < channels; k++) sum += matrix.weights[row * channels + k] * drift[k * channels + n];
    return sum;
  });
  const transposed = correlation.map((_, at) => correlation[at % rows * channels + Math.floor(at / rows)]);
  const feedback = prepareFeedback(hessian, FEEDBACK);
  const cpu = quantizeTwobit(matrix.weights, rows, channels, SETTINGS, { feedback, correlation });
  const wanted = shiftToTarget(matrix.weights, correlation, feedback);
  const target = { ...matrix, weights: wanted };
  for (const given of [{ hessian, drift }, { hessian, correlation: transposed }]) {
    const gpu = await quantizeOnGpu(matrix, 8, given);
    const ratio = objective(target, gpu, hessian) / objective(target, cpu, hessian);
    assert(ratio > 0.98 && ratio < 1.02, `${Object.keys(given)}: objective is ${ratio} of the CPU's`);
    assert(objective(matrix, gpu, hessian) > 2 * objective(target, gpu, hessian), "the target is no other one");
  }
});

test("quantizeMatrixOnDevice: a factor of another input is refused", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const hessian = await uploadSquare(gpu, scope, Float32Array.from(correlatedHessian(3, 32)));
  const factor = await factorize(gpu, scope, hessian, { damping: 0.1, order: "groups" });
  const quantized = () =>
    quantizeMatrixOnDevice(gpu, [16, 48], normals(1, 16 * 48, 0.02), { refineEvery: 8 }, { factor });
  await assertRejects(quantized, TypeError, "factor is for 32 channels, must be for 48");
});

test("quantizeMatrixOnDevice, Hessian in several slabs: the same bytes as in one", async () => {
  const [rows, channels] = [20, 1152];
  const matrix = { weights: normals(9, rows * channels, 0.02), rows, channels };
  const hessian = correlatedHessian(10, channels);
  const correlation = normals(11, channels * rows, 0.005 * hessian[0]);
  const inOne = await quantizeOnGpu(matrix, 8, { hessian, correlation });
  // Slabs of 256 rows (five), of 512 (three).
  for (const slabRows of [256, 700]) {
    const maxBindingBytes = 4 * channels * slabRows;
    assertEquals(await quantizeOnGpu(matrix, 8, { hessian, correlation, maxBindingBytes }), inOne);
  }
  const tooSmall = { hessian, maxBindingBytes: 4 * channels * 200 };
  await assertRejects(() => quantizeOnGpu(matrix, 8, tooSmall), RangeError, "must hold 256 rows");
});
