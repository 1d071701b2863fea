import { createRandom } from "../../../quant/random.ts";
import { embedTokens } from "../../../kernels/tokens/embed_tokens.ts";
import { uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";
import type { Dispatch, Gpu } from "../../../kernels/gpu/gpu.ts";
import { logLikelihood } from "../../../kernels/tokens/log_likelihood.ts";
import { createTokenRange, setTokenRange, type TokenRange } from "../../../kernels/tokens/token_range.ts";
import { rmsNorm } from "../../../kernels/tokens/rms_norm.ts";
import { siluProduct } from "../../../kernels/tokens/silu_product.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { assertWithin, poisonedOutput, randomActivations, readOutput, testGpu } from "../helpers.ts";
import { test } from "../../test.ts";
import { destroyMatrices } from "../../../kernels/matrix/slabs.ts";

const EPSILON = 2 ** -24;

/** Runs dispatches on a poisoned output; they cover some tokens more than there are. */
async function run(
  gpu: Gpu,
  tokens: number,
  length: number,
  launch: (range: TokenRange, y: GPUBufferBinding) => Promise<readonly Dispatch[]>,
): Promise<Float32Array> {
  const range = await createTokenRange(gpu, tokens + 5);
  setTokenRange(gpu, range, tokens, 0);
  const y = await poisonedOutput(gpu, length);
  gpu.submit(await launch(range, y));
  const actual = await readOutput(gpu, y);
  gpu.destroyBuffer(range.buffer);
  return actual;
}

test("rms_norm: each token by itself, widths that do and do not divide, a token of zeros", async () => {
  const gpu = await testGpu();
  for (const [tokens, hidden] of [[3, 256], [2, 1000], [5, 12], [1, 4096]]) {
    const x = randomActivations(tokens * hidden, hidden);
    x.fill(0, 0, hidden);
    const weight = randomActivations(hidden, 2);
    const buffers = { x: await gpu.uploadStorage("x", x), weight: await gpu.uploadStorage("weight", weight) };
    const actual = await run(gpu, tokens, tokens * hidden, async (range, y) => [
      await rmsNorm(gpu, range, { hidden, epsilon: 1e-5, ...buffers, y }),
    ]);
    const y = Float64Array.from(x, (value, at) => {
      const token = x.subarray(Math.floor(at / hidden) * hidden).subarray(0, hidden);
      const mean = token.reduce((sum, element) => sum + element * element, 0) / hidden;
      return value / Math.sqrt(mean + 1e-5) * weight[at % hidden];
    });
    // Squares are summed over hidden / 256 elements a thread and 8 levels; root, quotient and products add the rest.
    const bound = y.map((value) => (hidden / 256 + 20) * EPSILON * Math.abs(value));
    assertWithin(actual, { y, bound }, `${tokens} x ${hidden}`);
  }
});

test("silu_product: gates of every size, also where exp overflows", async () => {
  const gpu = await testGpu();
  const [tokens, width] = [3, 300];
  const x = randomActivations(tokens * 2 * width, 1);
  x.set([-1e4, -100, -88, -20, 0, 20, 100, 1e4]);
  const buffer = await gpu.uploadStorage("x", x);
  const actual = await run(
    gpu,
    tokens,
    tokens * width,
    async (range, y) => [await siluProduct(gpu, range, width, buffer, y)],
  );
  const y = new Float64Array(tokens * width);
  const bound = new Float64Array(tokens * width);
  for (let at = 0; at < y.length; at++) {
    const gate = x[Math.floor(at / width) * 2 * width + at % width];
    y[at] = gate / (1 + Math.exp(-gate)) * x[(Math.floor(at / width) * 2 + 1) * width + at % width];
    // WGSL's exp is good to 3 + 2 |x| units in the last place; see the kernel for gates below -80.
    bound[at] = (2 * (3 + 2 * Math.min(80, Math.abs(gate))) + 8) * EPSILON * Math.abs(y[at]) + 1e-28;
  }
  assertWithin(actual, { y, bound }, "silu");
});

test("rms_norm and silu_product in f16: what they write in f32, rounded in the unit", async () => {
  const gpu = await testGpu();
  const [tokens, width, unit] = [3, 260, 16];
  const x = await gpu.uploadStorage("x", randomActivations(tokens * 2 * width, 3));
  const weight = await gpu.uploadStorage("weight", randomActivations(width, 2));
  const norm = { hidden: width, epsilon: 1e-5, x, weight };
  const launches = [
    async (range: TokenRange, y: GPUBufferBinding, unit?: number) => await rmsNorm(gpu, range, { ...norm, y, unit }),
    async (range: TokenRange, y: GPUBufferBinding, unit?: number) => await siluProduct(gpu, range, width, x, y, unit),
  ];
  for (const launch of launches) {
    const floats = await run(gpu, tokens, tokens * width, async (range, y) => [await launch(range, y)]);
    const words = await run(gpu, tokens, tokens * width / 2, async (range, y) => [await launch(range, y, unit)]);
    const halves = new Float16Array(words.buffer, words.byteOffset, tokens * width);
    // Drivers may cut instead of rounding.
    const y = Float64Array.from(floats, (value) => value / unit);
    assertWithin(
      Float32Array.from(halves),
      { y, bound: y.map((value) => 2 ** -10 * Math.abs(value) + 2 ** -24) },
      "f16",
    );
  }
});

test("rms_norm refuses widths that are no fours", async () => {
  const gpu = await testGpu();
  const range = await createTokenRange(gpu, 1);
  const unused = await gpu.createStorage("unused", 64);
  const norm = { hidden: 7, epsilon: 0, x: unused, weight: unused, y: unused };
  await assertRejects(() => rmsNorm(gpu, range, norm), RangeError, "hidden is 7, must be a multiple of 4");
});

test("embed_tokens: rows of every slab, odd widths", async () => {
  const gpu = await testGpu();
  for (const [vocabulary, hidden] of [[300, 40], [130, 513]]) {
    const random = createRandom(hidden);
    const embedding = Float16Array.from({ length: vocabulary * hidden }, () => random.normal());
    const tokens = Uint32Array.of(0, vocabulary - 1, 64, 63, 64, 127);
    const matrix = await uploadF16Matrix(gpu, embedding, vocabulary, hidden, 80 * 1024);
    const ids = await gpu.uploadStorage("tokens", tokens);
    const actual = await run(
      gpu,
      tokens.length,
      tokens.length * hidden,
      (range, y) => embedTokens(gpu, matrix, range, ids, y),
    );
    const expected = Array.from(tokens, (token) => [...embedding.subarray(token * hidden, (token + 1) * hidden)]);
    assertEquals([...actual], expected.flat());
    destroyMatrices(gpu, matrix);
  }
});

test("log_likelihood: log-softmax of the target and the first maximum", async () => {
  const gpu = await testGpu();
  for (const [tokens, vocabulary] of [[4, 1000], [3, 32000], [2, 5]]) {
    const logits = randomActivations(tokens * vocabulary, vocabulary);
    // A tie for the maximum, and a token that is almost certain.
    logits[2] = logits[vocabulary - 1] = 200;
    const targets = Uint32Array.from({ length: tokens }, (_, t) => t === 0 ? 2 : (t * 7919) % vocabulary);
    const best = await gpu.createStorage("best", 4 * tokens);
    const buffers = {
      logits: await gpu.uploadStorage("logits", logits),
      targets: await gpu.uploadStorage("targets", targets),
      best,
    };
    const actual = await run(gpu, tokens, tokens, async (range, logLikelihoods) => [
      await logLikelihood(gpu, range, { vocabulary, ...buffers, logLikelihoods }),
    ]);
    const expected = scoreOnCpu(logits, targets, vocabulary);
    assertWithin(actual, expected, `${tokens} x ${vocabulary}`);
    assertEquals([...new Uint32Array(await gpu.read(best, 4 * tokens))], expected.best);
    assert(expected.best[0] === 2);
  }
});

function scoreOnCpu(logits: Float32Array, targets: Uint32Array, vocabulary: number) {
  const scored: BoundedProduct & { best: number[] } = {
    y: new Float64Array(targets.length),
    bound: new Float64Array(targets.length),
    best: [],
  };
  for (const [t, target] of targets.entries()) {
    const row = logits.subarray(t * vocabulary, (t + 1) * vocabulary);
    const max = row.reduce((a, b) => Math.max(a, b));
    let sum = 0;
    let sumError = 0;
    for (const logit of row) {
      const term = Math.exp(logit - max);
      sum += term;
      // Rounding of the difference, then of exp (3 + 2 |x| units in the last place, each twice EPSILON).
      sumError += term * (6 + 5 * (max - logit)) * EPSILON;
    }
    scored.y[t] = row[target] - max - Math.log(sum);
    const relative = sumError / sum + (vocabulary / 256 + 8) * EPSILON;
    scored.bound[t] = relative + 2 ** -21 + 6 * EPSILON * (Math.log(sum) + Math.abs(row[target] - max));
    scored.best.push(row.indexOf(max));
  }
  return scored;
}
