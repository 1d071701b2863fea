import {
  attentionBackwardOnCpu,
  divergenceOnCpu,
  rmsNormBackwardOnCpu,
  ropeBackwardOnCpu,
  siluBackwardOnCpu,
  tileGradientOnCpu,
} from "./backward_reference.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert } from "../../assert.ts";
import { test } from "../../test.ts";

/** Central differences in f64 are off by about the square of the step. */
const STEP = 1e-5;

function draw(length: number, seed: number): Float64Array {
  const random = createRandom(seed);
  return Float64Array.from({ length }, () => random.normal());
}

/** Asserts that `gradient` is that of sum(factors * f(x)), by changing each element of x. */
function assertGradient(
  gradient: ArrayLike<number>,
  x: Float64Array,
  f: (x: Float64Array) => ArrayLike<number>,
  factors: ArrayLike<number>,
): void {
  for (let i = 0; i < x.length; i++) {
    const valueWith = (change: number) => {
      const y = f(x.with(i, x[i] + change));
      return Array.from(y).reduce((sum, value, at) => sum + value * factors[at], 0);
    };
    const wanted = (valueWith(STEP) - valueWith(-STEP)) / (2 * STEP);
    assert(Math.abs(gradient[i] - wanted) < 1e-6, `element ${i} is ${gradient[i]}, must be ${wanted}`);
  }
}

function rmsNorm(x: Float64Array, weight: Float64Array, epsilon: number): Float64Array {
  const hidden = weight.length;
  return x.map((value, at) => {
    const first = at - at % hidden;
    const square = x.subarray(first, first + hidden).reduce((sum, v) => sum + v * v, 0) / hidden;
    return (value / Math.sqrt(square + epsilon)) * weight[at % hidden];
  });
}

test("rmsNormBackwardOnCpu: equals finite differences", () => {
  const [x, weight, factors] = [draw(15, 1), draw(5, 2), draw(15, 3)];
  const { xGradient, weightGradient } = rmsNormBackwardOnCpu(x, weight, factors, 0.1);
  assertGradient(xGradient.y, x, (x) => rmsNorm(x, weight, 0.1), factors);
  assertGradient(weightGradient.y, weight, (weight) => rmsNorm(x, weight, 0.1), factors);
});

test("siluBackwardOnCpu: equals finite differences", () => {
  const [x, factors] = [draw(20, 1), draw(10, 2)];
  const product = (x: Float64Array) =>
    factors.map((_, at) => {
      const gate = x[Math.floor(at / 5) * 10 + at % 5];
      return gate / (1 + Math.exp(-gate)) * x[Math.floor(at / 5) * 10 + 5 + at % 5];
    });
  assertGradient(siluBackwardOnCpu(x, factors, 5).y, x, product, factors);
});

test("divergenceOnCpu: its gradient equals finite differences", () => {
  const [wanted, logits] = [draw(9, 1), draw(9, 2)];
  const of = (logits: Float64Array) => divergenceOnCpu(wanted, logits).divergence.y;
  assertGradient(divergenceOnCpu(wanted, logits).gradient.y, logits, of, [1]);
});

for (const slidingWindow of [undefined, 3]) {
  test(`attentionBackwardOnCpu, window ${slidingWindow}: equals finite differences`, () => {
    const shape = { heads: 4, keyValueHeads: 2, headSize: 3, ...(slidingWindow && { slidingWindow }) };
    const [q, k, v, factors] = [draw(60, 1), draw(30, 2), draw(30, 3), draw(60, 4)];
    const { qGradient, kGradient, vGradient } = attentionBackwardOnCpu(shape, { q, k, v }, factors);
    const out = (operands: { q: Float64Array; k: Float64Array; v: Float64Array }) =>
      attentionBackwardOnCpu(shape, operands, factors).out;
    assertGradient(qGradient.y, q, (q) => out({ q, k, v }), factors);
    assertGradient(kGradient.y, k, (k) => out({ q, k, v }), factors);
    assertGradient(vGradient.y, v, (v) => out({ q, k, v }), factors);
  });
}

test("ropeBackwardOnCpu: equals finite differences, with and without a norm", () => {
  const [x, weight, factors] = [draw(6, 1), draw(6, 2), draw(6, 3)];
  const turns = [0.3, 1.1, 2.5].map((angle) => [Math.cos(angle), Math.sin(angle)] as const);
  const turn = (x: Float64Array) =>
    x.map((value, i) => {
      const [cosine, sine] = turns[i % 3];
      return i < 3 ? value * cosine - x[i + 3] * sine : value * cosine + x[i - 3] * sine;
    });
  assertGradient(ropeBackwardOnCpu(x, factors, turns).y, x, turn, factors);
  const norm = { weight, epsilon: 0.1 };
  assertGradient(ropeBackwardOnCpu(x, factors, turns, norm).y, x, (x) => turn(rmsNorm(x, weight, 0.1)), factors);
});

test("tileGradientOnCpu: equals the change with the logarithm of each tile's scale", () => {
  const [weights, factors] = [draw(20 * 32, 1), draw(20 * 32, 2)];
  const scaled = (logs: Float64Array) =>
    weights.map((weight, at) => {
      const [row, channel] = [Math.floor(at / 32), at % 32];
      return weight * Math.exp(logs[Math.floor(row / 16) * 2 + Math.floor(channel / 16)]);
    });
  assertGradient(tileGradientOnCpu(weights, factors, 32).y, new Float64Array(4), scaled, factors);
});
