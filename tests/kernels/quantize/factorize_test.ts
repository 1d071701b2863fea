import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { channelsOf, factorize } from "../../../kernels/quantize/factorize.ts";
import { submitAsMade } from "../../../kernels/gpu/run_ahead.ts";
import { transposeWeights } from "../../../kernels/quantize/group_quantizer.ts";
import { solveFactor } from "../../../kernels/quantize/solve_factor.ts";
import { type FeedbackSettings, prepareFeedback } from "../../../quant/error_feedback.ts";
import { shiftToTarget } from "../../../quant/target.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { correlatedHessian, normals } from "../../quant/helpers.ts";
import { test } from "../../test.ts";
import { readSquareMatrix } from "../../../kernels/matrix/square_matrix.ts";
import { testGpu, uploadSquare } from "../helpers.ts";

const GROUPS: FeedbackSettings = { damping: 0.1, order: "groups" };

/**
 * Factors a Hessian on both sides. Cholesky's backward error is about size * 2^-24 of the diagonal, and the damped
 * Hessian's condition number, below size / damping, times half of that bounds the factor's.
 */
async function checkFactor(hessian: Float64Array<ArrayBuffer>, settings: FeedbackSettings, tolerance: number) {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const channels = Math.sqrt(hessian.length);
  const rounded = Float32Array.from(hessian);
  const factor = await factorize(gpu, scope, await uploadSquare(gpu, scope, rounded), settings);
  const wanted = prepareFeedback(Float64Array.from(rounded), settings);
  const order = new Uint32Array(await gpu.read(factor.channelOrder, 4 * channels));
  assertEquals([...order], [...wanted.order]);
  assertEquals([...channelsOf(factor)], [...wanted.order]);
  assert(Math.abs(factor.added / wanted.added - 1) < 1e-6 || factor.added === wanted.added);
  const matrix = await readSquareMatrix(gpu, factor.matrix);
  for (let k = 0; k < channels; k++) {
    const pivot = wanted.coefficients[k * channels + k];
    for (let i = 0; i <= k; i++) {
      const value = wanted.coefficients[k * channels + i] * (i < k ? pivot : 1);
      for (const at of [k * channels + i, i * channels + k]) {
        assert(Math.abs(matrix[at] - value) <= tolerance * pivot, `V[${i}, ${k}] is ${matrix[at]}, must be ${value}`);
      }
    }
  }
}

test("factorize: V and its order equal the CPU's, for whole and ragged blocks and in every order", async () => {
  for (const channels of [16, 64, 208]) {
    await checkFactor(correlatedHessian(channels, channels), GROUPS, channels * 10 * 2 ** -24);
  }
  await checkFactor(correlatedHessian(3, 144), { damping: 0.01, order: "natural" }, 144 * 100 * 2 ** -24);
  await checkFactor(correlatedHessian(4, 144), { damping: 0.1, order: "channels" }, 144 * 10 * 2 ** -24);
});

test("factorize: a singular Hessian and channels that are never active are factored as on the CPU", async () => {
  await checkFactor(correlatedHessian(1, 96, 10), GROUPS, 96 * 10 * 2 ** -24);
  const silent = correlatedHessian(2, 80);
  for (let i = 0; i < 80; i++) silent[20 * 80 + i] = silent[i * 80 + 20] = 0;
  await checkFactor(silent, GROUPS, 80 * 10 * 2 ** -24);
  await checkFactor(new Float64Array(32 * 32), GROUPS, 0);
});

test("factorize: not-a-number and an indefinite Hessian are refused", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const upload = (values: Float32Array<ArrayBuffer>) => uploadSquare(gpu, scope, values);
  const identity = Float32Array.from({ length: 256 }, (_, i) => i % 17 === 0 ? 1 : 0);
  const broken = identity.slice();
  broken[34] = NaN;
  await assertRejects(async () => factorize(gpu, scope, await upload(broken), GROUPS), RangeError, "NaN");
  // 1e9 beside the diagonal: no damping that is tried reaches it.
  const indefinite = identity.slice();
  indefinite[1] = 1e9;
  const refused = async () => factorize(gpu, scope, await upload(indefinite), GROUPS);
  await assertRejects(refused, RangeError, "not positive definite in f32");
});

test("factorize: damping is raised until the factorization succeeds", async () => {
  // Eigenvalue -1e-4: damping from 1e-6 on, tripled, passes it at the sixth try.
  const hessian = Float64Array.from({ length: 256 }, (_, i) => i % 17 === 0 ? 1 : 0);
  hessian[1] = hessian[16] = 1 + 1e-4;
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const square = await uploadSquare(gpu, scope, Float32Array.from(hessian));
  const settings = { damping: 0, order: "natural" } as const;
  const { added } = await factorize(gpu, scope, square, settings);
  assert(added > 1e-4 && added === prepareFeedback(hessian, settings).added, `added ${added}`);
});

test("solveFactor: solves as the CPU does, forwards and backwards over several blocks", async () => {
  const gpu = await testGpu();
  for (const [rows, channels] of [[20, 208], [64, 48]]) {
    using scope = createBufferScope(gpu);
    const hessian = Float32Array.from(correlatedHessian(rows, channels));
    const factor = await factorize(gpu, scope, await uploadSquare(gpu, scope, hessian), GROUPS);
    const right = normals(rows, rows * channels);
    const x = await scope.storage("x", 4 * rows * channels);
    await transposeWeights(gpu, [rows, channels], right, factor.channelOrder, x);
    await submitAsMade(gpu, solveFactor(gpu, scope, factor, x, rows));
    const actual = await gpu.readF32(x);
    const feedback = prepareFeedback(Float64Array.from(hessian), GROUPS);
    const wanted = shiftToTarget(new Float32Array(rows * channels), right, feedback);
    const largest = wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    // Condition number below channels / damping.
    const tolerance = channels * 10 * 2 ** -24 * largest;
    for (let k = 0; k < channels; k++) {
      for (let row = 0; row < rows; row++) {
        const value = wanted[row * channels + feedback.order[k]];
        assert(
          Math.abs(actual[k * rows + row] - value) <= tolerance,
          `s[${k}, ${row}]: ${actual[k * rows + row]}, ${value}`,
        );
      }
    }
  }
});
