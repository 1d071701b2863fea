import fc from "fast-check";
import { choleskyUpper } from "../../quant/cholesky.ts";
import { dotTwoRuns } from "../../quant/dot.ts";
import { type FeedbackSettings, prepareFeedback, quantizeWithFeedback } from "../../quant/error_feedback.ts";
import { createGrid, decodeGrid, type Grid, nearestCodes } from "../../quant/grid.ts";
import { createRandom } from "../../quant/random.ts";
import { shiftToTarget } from "../../quant/target.ts";
import { assert, assertAlmostEquals, assertClose, assertEquals, assertThrows } from "../assert.ts";
import { readJson } from "../fixture.ts";
import { correlatedHessian, normals, objective } from "./helpers.ts";

/** Groups of `size` consecutive channels. */
const groupsOf = (channels: number, size: number) =>
  Uint16Array.from({ length: channels }, (_, channel) => Math.floor(channel / size));

Deno.test("choleskyUpper: by hand", () => {
  // V = [1 2 3; 0 4 5; 0 0 6]; V Vᵀ = [14 23 18; 23 41 30; 18 30 36]. Row k of the result is column k of V.
  const columns = choleskyUpper(Float64Array.of(14, 23, 18, 23, 41, 30, 18, 30, 36), 3);
  assertEquals(columns && [...columns], [1, 0, 0, 2, 4, 0, 3, 5, 6]);
});

Deno.test("choleskyUpper: V Vᵀ is the matrix, V has no entry below the diagonal", () => {
  const cases = fc.record({ seed: fc.integer(), size: fc.integer({ min: 1, max: 40 }) });
  fc.assert(
    fc.property(cases, ({ seed, size }) => {
      const matrix = correlatedHessian(seed, size);
      const columns = choleskyUpper(matrix, size);
      assert(columns);
      const product = new Float64Array(size * size);
      for (let i = 0; i < size; i++) {
        for (let j = 0; j < size; j++) {
          if (j > i) assertEquals(columns[i * size + j], 0);
          for (let k = 0; k < size; k++) product[i * size + j] += columns[k * size + i] * columns[k * size + j];
        }
      }
      const largest = Math.max(...matrix);
      assertClose(product, matrix, 4 * size * 2 ** -53 * largest);
    }),
    { seed: 11, numRuns: 60 },
  );
});

Deno.test("choleskyUpper: gives up on matrices that aren't positive definite, keeps its input", () => {
  for (
    const matrix of [[1, 2, 2, 1], [1 + 2 ** -52, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [-1, 0, 0, 1], [1, 0, 0, -1], [
      NaN,
      0,
      0,
      1,
    ]]
  ) {
    assertEquals(choleskyUpper(Float64Array.from(matrix), 2), undefined, matrix.join());
  }
  // Half the rank: rounding leaves pivots that are above 0 by chance.
  for (let seed = 0; seed < 50; seed++) assertEquals(choleskyUpper(correlatedHessian(seed, 16, 8), 16), undefined);
  const kept = Float64Array.of(4, 2, 2, 3);
  choleskyUpper(kept, 2);
  assertEquals([...kept], [4, 2, 2, 3]);
});

Deno.test("dotTwoRuns: every length", () => {
  const a = Float64Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90);
  const b = Float64Array.of(9, 1, 1, 1, 1, 2, 2, 2, 2, 3);
  const wanted = [0, 1, 3, 6, 10, 20, 32, 46, 62, 89];
  for (const [length, sum] of wanted.entries()) {
    const sums = Float64Array.of(7, 7, 7, 7);
    dotTwoRuns(a, 0, 9, b, 1, length, sums, 1);
    assertEquals([...sums], [7, sum, 10 * sum, 7]);
  }
});

/** Textbook GPTQ in numpy (tests/fixtures/make_gptq.py). */
interface GptqFixture {
  readonly rows: number;
  readonly channels: number;
  readonly group: number;
  readonly damping: number;
  /** Rows of integers. */
  readonly weights_x1024: string[];
  readonly inputs: string[];
  readonly steps_x256: string[];
  readonly zeros: string[];
  readonly order: string;
  /** Rows of codes, a digit each. */
  readonly natural: string[];
  readonly channels_first: string[];
}

async function readGptq() {
  const fixture = await readJson<GptqFixture>("gptq.json");
  const numbers = (rows: readonly string[]) => rows.flatMap((row) => row.split(" ").map(Number));
  const { rows, channels } = fixture;
  const inputs = numbers(fixture.inputs);
  const hessian = new Float64Array(channels * channels);
  for (let at = 0; at < inputs.length; at += channels) {
    for (let i = 0; i < channels; i++) {
      for (let j = 0; j < channels; j++) hessian[i * channels + j] += inputs[at + i] * inputs[at + j];
    }
  }
  const grid = createGrid(rows, groupsOf(channels, fixture.group));
  grid.step.set(numbers(fixture.steps_x256).map((step) => step / 256));
  grid.lowest.set(numbers(fixture.zeros).map((zero, i) => -zero * grid.step[i]));
  grid.maxCode.fill(3);
  const weights = Float32Array.from(numbers(fixture.weights_x1024), (weight) => weight / 1024);
  return { fixture, hessian, grid, weights };
}

Deno.test("quantizeWithFeedback: the codes of textbook GPTQ, natural and largest diagonal first", async () => {
  const { fixture, hessian, grid, weights } = await readGptq();
  for (const [order, expected] of [["natural", fixture.natural], ["channels", fixture.channels_first]] as const) {
    const feedback = prepareFeedback(hessian, { damping: fixture.damping, order });
    if (order === "channels") assertEquals(feedback.order.join(" "), fixture.order);
    const codes = quantizeWithFeedback(weights, grid, feedback);
    const digits = Array.from(
      { length: fixture.rows },
      (_, row) => codes.subarray(row * fixture.channels, (row + 1) * fixture.channels).join(""),
    );
    assertEquals(digits, expected, order);
  }
});

function randomGrid(seed: number, rows: number, channels: number): Grid {
  const random = createRandom(seed);
  const grid = createGrid(rows, groupsOf(channels, 16));
  for (let i = 0; i < grid.step.length; i++) {
    grid.step[i] = 0.5 + random.uniform();
    grid.lowest[i] = -grid.step[i] * (1 + random.uniform());
    grid.maxCode[i] = 3;
  }
  return grid;
}

Deno.test("quantizeWithFeedback: an identity Hessian gives the codes of round to nearest", () => {
  const [rows, channels] = [7, 50];
  const weights = normals(21, rows * channels);
  const grid = randomGrid(22, rows, channels);
  const identity = Float64Array.from({ length: channels ** 2 }, (_, i) => i % (channels + 1) === 0 ? 1 : 0);
  for (const order of ["natural", "channels", "groups"] as const) {
    const feedback = prepareFeedback(identity, { damping: 0.01, order });
    assertEquals([...quantizeWithFeedback(weights, grid, feedback)], [...nearestCodes(weights, grid)]);
  }
});

Deno.test("quantizeWithFeedback: lowers the objective on correlated inputs, whatever the order", () => {
  const [rows, channels] = [16, 64];
  for (const seed of [1, 2, 3]) {
    const weights = normals(seed, rows * channels);
    const grid = randomGrid(seed, rows, channels);
    const hessian = correlatedHessian(seed, channels);
    const nearest = objective(weights, decodeGrid(nearestCodes(weights, grid), grid), hessian);
    for (const order of ["natural", "channels", "groups"] as const) {
      const feedback = prepareFeedback(hessian, { damping: 0.01, order });
      const decoded = decodeGrid(quantizeWithFeedback(weights, grid, feedback), grid);
      const value = objective(weights, decoded, hessian);
      assert(value < 0.75 * nearest, `${order}: ${value}, round to nearest ${nearest}`);
    }
  }
});

Deno.test("prepareFeedback: orders", () => {
  const diagonal = Array.from({ length: 40 }, (_, i) => i === 35 ? 50 : i === 3 ? 20 : i < 32 && i >= 16 ? 2 : 1);
  const hessian = Float64Array.from({ length: 1600 }, (_, i) => i % 41 === 0 ? diagonal[i / 41] : 0);
  const orderOf = (order: FeedbackSettings["order"]) => [...prepareFeedback(hessian, { damping: 0, order }).order];
  const from = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i);
  assertEquals(orderOf("natural"), from(0, 40));
  // Sums by group: 15 + 20 = 35, 32, 7 + 50 = 57.
  assertEquals(orderOf("groups"), [...from(32, 40), ...from(0, 16), ...from(16, 32)]);
  const rest = from(0, 40).filter((i) => i !== 35 && i !== 3 && (i < 16 || i >= 32));
  assertEquals(orderOf("channels"), [35, 3, ...from(16, 32), ...rest]);
});

Deno.test("prepareFeedback: holds V[i, k] / V[k, k], the undamped diagonal and what was added", () => {
  // Mean diagonal 91 / 3; V as in the test by hand where nothing is added.
  const hessian = Float64Array.of(14, 23, 18, 23, 41, 30, 18, 30, 36);
  const { coefficients, diagonal, added, channels } = prepareFeedback(hessian, { damping: 0, order: "natural" });
  assertEquals([channels, added, ...diagonal], [3, 0, 14, 41, 36]);
  assertClose(coefficients, [1, 0, 0, 0.5, 4, 0, 0.5, 5 / 6, 6], 1e-15);
  const damped = prepareFeedback(hessian, { damping: 0.5, order: "natural" });
  assertAlmostEquals(damped.added, 91 / 6, 1e-13);
  assertEquals([...damped.diagonal], [14, 41, 36]);
  assertAlmostEquals(damped.coefficients[8], Math.sqrt(36 + 91 / 6), 1e-13);
});

Deno.test("prepareFeedback: triples the damping until the factorization succeeds", () => {
  // Eigenvalues 3 and -1, mean diagonal 1: 0.1 * 3^k > 1 needs k = 3.
  const { added } = prepareFeedback(Float64Array.of(1, 2, 2, 1), { damping: 0.1, order: "natural" });
  assertAlmostEquals(added, 2.7, 1e-12);
  assertThrows(
    () => prepareFeedback(Float64Array.of(1, 2, 2, 1), { damping: 0, order: "natural" }),
    RangeError,
    "not positive definite",
  );
});

Deno.test("prepareFeedback: a dead channel neither receives nor gives feedback", () => {
  const hessian = correlatedHessian(5, 8);
  for (let i = 0; i < 8; i++) hessian[3 * 8 + i] = hessian[i * 8 + 3] = 0;
  const { coefficients } = prepareFeedback(hessian, { damping: 0.01, order: "natural" });
  for (let i = 0; i < 8; i++) {
    assertEquals(coefficients[3 * 8 + i], i === 3 ? 1 : 0);
    if (i !== 3) assertEquals(coefficients[i * 8 + 3], 0);
  }
});

/** Solves A s = b by Gaussian elimination with pivoting. */
function solveDense(matrix: Float64Array, vector: Float64Array): Float64Array {
  const size = vector.length;
  const rows = Array.from({ length: size }, (_, i) => [...matrix.subarray(i * size, (i + 1) * size), vector[i]]);
  for (let k = 0; k < size; k++) {
    const best = rows.slice(k).reduce((at, row, i) => Math.abs(row[k]) > Math.abs(rows[at][k]) ? k + i : at, k);
    [rows[k], rows[best]] = [rows[best], rows[k]];
    for (let i = k + 1; i < size; i++) {
      const factor = rows[i][k] / rows[k][k];
      for (let j = k; j <= size; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  const solution = new Float64Array(size);
  for (let k = size - 1; k >= 0; k--) {
    let sum = rows[k][size];
    for (let j = k + 1; j < size; j++) sum -= rows[k][j] * solution[j];
    solution[k] = sum / rows[k][k];
  }
  return solution;
}

Deno.test("shiftToTarget: solves with the damped Hessian, whatever the order", () => {
  const [rows, channels] = [3, 37];
  const hessian = correlatedHessian(31, channels, 60);
  for (let i = 0; i < channels; i++) hessian[9 * channels + i] = hessian[i * channels + 9] = 0; // a dead channel
  const weights = normals(32, rows * channels);
  const correlation = normals(33, rows * channels, 20);
  for (const order of ["natural", "channels", "groups"] as const) {
    const feedback = prepareFeedback(hessian, { damping: 0.02, order });
    const damped = hessian.slice();
    for (let i = 0; i < channels; i++) damped[i * (channels + 1)] += i === 9 ? 1 : feedback.added;
    const target = shiftToTarget(weights, correlation, feedback);
    for (let row = 0; row < rows; row++) {
      const own = (all: Float32Array) => all.subarray(row * channels, (row + 1) * channels);
      const shift = solveDense(damped, Float64Array.from(own(correlation)));
      const wanted = Float64Array.from(own(weights), (weight, k) => weight + shift[k]);
      assertClose(own(target), wanted, 1e-6 * Math.max(1, ...wanted.map(Math.abs)));
    }
  }
});

Deno.test("shiftToTarget: leaves the weights where nothing correlates", () => {
  const weights = normals(1, 24);
  const feedback = prepareFeedback(correlatedHessian(2, 12), { damping: 0.01, order: "groups" });
  assertEquals([...shiftToTarget(weights, new Float32Array(24), feedback)], [...weights]);
});
