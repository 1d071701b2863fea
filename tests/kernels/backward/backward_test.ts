import { adamStep, adamWords, scaleTiles } from "../../../kernels/backward/adam.ts";
import {
  divergenceOnCpu,
  rmsNormBackwardOnCpu,
  ropeBackwardOnCpu,
  siluBackwardOnCpu,
  tileGradientOnCpu,
} from "./backward_reference.ts";
import { divergence } from "../../../kernels/backward/divergence.ts";
import { partialsBytes, rmsNormBackward } from "../../../kernels/backward/norm_backward.ts";
import { ropeBackward } from "../../../kernels/backward/rope_backward.ts";
import { siluBackward } from "../../../kernels/backward/silu_backward.ts";
import { tileGradient } from "../../../kernels/backward/tile_gradient.ts";
import { transposeHalves } from "../../../kernels/backward/transpose_halves.ts";
import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { whole } from "../../../kernels/gpu/plane.ts";
import { createF16Matrix, uploadF16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import { scaleGroups, uploadPackedMatrix } from "../../../kernels/matrix/packed_matrix.ts";
import { buffersOf, placeRows } from "../../../kernels/matrix/slabs.ts";
import { createTokenRange } from "../../../kernels/tokens/token_range.ts";
import { dequantize } from "../../../quant/dequantize.ts";
import { tilesPerColumn } from "../../../quant/format.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { test } from "../../test.ts";
import { assertWithin, poisonedOutput, randomTensor, readOutput, testGpu } from "../helpers.ts";

function draw(length: number, seed: number): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => random.normal());
}

/** What has been there already, and is added to. */
const BEFORE = 2;

/** Takes what was there off a sum, whose last rounding is of the sum's size. */
function withoutBefore(sum: Float32Array, bound: Float64Array): Float64Array {
  bound.forEach((own, i) => bound[i] = own + (Math.abs(sum[i]) + BEFORE) * 2 ** -22);
  return Float64Array.from(sum, (value) => value - BEFORE);
}

for (const [hidden, tokens] of [[40, 70], [700, 33]]) {
  test(`rms_norm_backward ${tokens} x ${hidden}: equals the CPU, added to what is there`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const range = await createTokenRange(gpu, tokens);
    scope.own(range.buffer);
    const [x, weight, gradient] = [draw(tokens * hidden, 1), draw(hidden, 2), draw(tokens * hidden, 3)];
    const sums = (length: number) => scope.upload("sums", new Float32Array(length).fill(BEFORE));
    const [xGradient, weightGradient] = [await sums(tokens * hidden), await sums(hidden)];
    gpu.submit(
      await rmsNormBackward(gpu, range, {
        hidden,
        epsilon: 0.01,
        x: await scope.upload("x", x),
        weight: await scope.upload("weight", weight),
        yGradient: await scope.upload("y gradient", gradient),
        xGradient,
        weightGradient,
        partials: await scope.storage("partials", partialsBytes(tokens, hidden)),
      }),
    );
    const wanted = rmsNormBackwardOnCpu(x, weight, gradient, 0.01);
    const actual = [await gpu.readF32(xGradient), await gpu.readF32(weightGradient, hidden)];
    assertWithin(withoutBefore(actual[0], wanted.xGradient.bound), wanted.xGradient, "x");
    assertWithin(withoutBefore(actual[1], wanted.weightGradient.bound), wanted.weightGradient, "weight");
  });
}

test("silu_backward: equals the CPU, far out too", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const [width, tokens] = [300, 3];
  const range = await createTokenRange(gpu, tokens);
  scope.own(range.buffer);
  const x = draw(2 * width * tokens, 1);
  x.set([100, -100, 30, -30, 0]);
  const gradient = draw(width * tokens, 2);
  const buffer = await scope.upload("x", x);
  gpu.submit([await siluBackward(gpu, range, width, buffer, await scope.upload("gradient", gradient))]);
  const wanted = siluBackwardOnCpu(x, gradient, width);
  // What is below the smallest normal number may be 0.
  wanted.bound.forEach((bound, i) => wanted.bound[i] = bound + 2 ** -100);
  assertWithin(await gpu.readF32(buffer), wanted, "x");
});

for (const [vocabulary, stride] of [[5, 8], [700, 704], [32000, 32000]]) {
  test(`divergence of ${vocabulary} tokens: it and its gradient equal the CPU's`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const tokens = 5;
    const range = await createTokenRange(gpu, tokens);
    scope.own(range.buffer);
    const weights = Float32Array.of(1, 0, 0.25, 1, 1);
    const [wanted, logits] = [4, 5].map((seed) => draw(tokens * stride, seed).map((value) => 4 * value));
    // Of the last tokens one's predictions are equal but for a shift, and the next one's near; one is almost certain.
    wanted[2 * stride + vocabulary - 1] = 100;
    for (let i = 3 * stride; i < 5 * stride; i++) logits[i] = i < 4 * stride ? wanted[i] + 3 : 1.01 * wanted[i];
    const buffer = await scope.upload("logits", logits);
    const divergences = await poisonedOutput(gpu, tokens);
    gpu.submit([
      await divergence(gpu, range, {
        vocabulary,
        stride,
        wanted: await scope.upload("wanted", wanted),
        weights: await scope.upload("weights", weights),
        logits: buffer,
        divergences,
      }),
    ]);
    const gradients = await gpu.readF32(buffer);
    const found = await readOutput(gpu, divergences);
    for (const [token, weight] of weights.entries()) {
      const own = (values: Float32Array) => values.subarray(token * stride, token * stride + vocabulary);
      const { divergence, gradient } = divergenceOnCpu(own(wanted), own(logits));
      const weighed = ({ y, bound }: typeof gradient) => ({
        y: y.map((value) => weight * value),
        bound: bound.map((value) => weight * value),
      });
      assertWithin([found[token]], weighed(divergence), `token ${token}`);
      assertWithin(own(gradients), weighed(gradient), `token ${token}, gradient`);
      const [after, next] = [token * stride + vocabulary, (token + 1) * stride];
      assertEquals(gradients.slice(after, next), logits.slice(after, next));
    }
  });
}

for (const hasNorm of [false, true]) {
  test(`rope_backward ${hasNorm ? "with" : "without"} norms: equals the CPU, values stay`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const shape = { heads: 2, keyValueHeads: 1, headSize: 16 };
    const { headSize } = shape;
    const [windowTokens, tokens, width, half] = [3, 6, 4 * headSize, headSize / 2];
    const range = await createTokenRange(gpu, tokens);
    scope.own(range.buffer);
    const [before, bias, norms, gradient] = [tokens * width, width, 2 * headSize, tokens * width].map(draw);
    const angles = draw(windowTokens * half, 5);
    const rotations = Float32Array.from([...angles].flatMap((angle) => [Math.cos(angle), Math.sin(angle)]));
    const buffer = await scope.upload("gradient", gradient);
    gpu.submit([
      await ropeBackward(gpu, shape, range, windowTokens, {
        rotations: await scope.upload("rotations", rotations),
        before: await scope.upload("before", before),
        bias: await scope.upload("bias", bias),
        gradient: buffer,
        ...(hasNorm && { headNorm: { weights: await scope.upload("norms", norms), epsilon: 0.01 } }),
      }),
    ]);
    const actual = await gpu.readF32(buffer);
    for (let token = 0; token < tokens; token++) {
      for (let head = 0; head < 4; head++) {
        const first = token * width + head * headSize;
        const own = (values: Float32Array) => values.slice(first, first + headSize);
        if (head === 3) {
          assertEquals(own(actual), own(gradient));
          continue;
        }
        const turns = Array.from({ length: half }, (_, i) => {
          const at = 2 * (token % windowTokens * half + i);
          return [rotations[at], rotations[at + 1]] as const;
        });
        const x = own(before).map((value, i) => value + bias[head * headSize + i]);
        const weight = norms.subarray(head < 2 ? 0 : headSize, head < 2 ? headSize : 2 * headSize);
        const wanted = ropeBackwardOnCpu(x, own(gradient), turns, hasNorm ? { weight, epsilon: 0.01 } : undefined);
        assertWithin(own(actual), wanted, `token ${token}, head ${head}`);
      }
    }
  });
}

for (const [rows, channels, refineEvery] of [[20, 144, 8], [32, 64, 1], [4, 304, 2], [16, 128, "none"]] as const) {
  test(`tile_gradient ${rows} x ${channels}, refined ${refineEvery}: equals the CPU, and clears what it took`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const tensor = randomTensor({ rows, channels, refineEvery, outlierShare: 0 }, rows);
    const [firstRow, outputRows] = [8, rows + 12];
    const matrix = placeRows(await uploadPackedMatrix(gpu, tensor), firstRow, outputRows);
    buffersOf(matrix).forEach(scope.own);
    const weightGradient = draw(outputRows * channels, 6);
    const buffer = await scope.upload("weight gradient", weightGradient);
    const tileGroups = scaleGroups(tensor.tileScale.length / tilesPerColumn(rows));
    const length = tilesPerColumn(rows) * tileGroups;
    const gradient = await scope.upload("gradient", new Float32Array(length).fill(BEFORE));
    gpu.submit([await tileGradient(gpu, matrix, buffer, gradient)]);
    const [first, end] = [firstRow * channels, (firstRow + rows) * channels];
    const wanted = tileGradientOnCpu(dequantize(tensor), weightGradient.subarray(first, end), channels);
    const actual = await gpu.readF32(gradient, length);
    const used = actual.filter((_, i) => i % tileGroups < channels / 16);
    assertWithin(withoutBefore(used, wanted.bound), wanted, "gradient");
    assert(actual.every((value, i) => i % tileGroups < channels / 16 || value === BEFORE));
    const left = await gpu.readF32(buffer);
    assertEquals(left, weightGradient.map((value, at) => at < first || at >= end ? value : 0));
  });
}

test("tile_gradient: several slabs, or channels that don't fill their groups, are refused", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const matrix = await uploadPackedMatrix(
    gpu,
    randomTensor({ rows: 16, channels: 64, refineEvery: 8, outlierShare: 0 }, 1),
  );
  buffersOf(matrix).forEach(scope.own);
  const buffer = await scope.storage("gradients", 4 * 16 * 64);
  const { slabs: [slab] } = matrix;
  for (const other of [{ slabs: [slab, slab] }, { channels: 60 }]) {
    await assertRejects(
      () => tileGradient(gpu, { ...matrix, ...other }, buffer, buffer),
      RangeError,
      "must have one of whole groups",
    );
  }
});

for (const [rows, channels] of [[40, 72], [7, 24]]) {
  test(`transpose_halves ${rows} x ${channels}: rows are columns, beside those that were there`, async () => {
    const gpu = await testGpu();
    using scope = createBufferScope(gpu);
    const [firstRow, joined] = [10, rows + 10];
    const weights = Float16Array.from(draw(rows * channels, 7));
    const before = Float16Array.from(draw(channels * joined, 8));
    const matrix = placeRows(await uploadF16Matrix(gpu, weights, rows, channels), firstRow, joined);
    const transposed = await createF16Matrix(gpu, channels, joined);
    for (const { buffer } of [...matrix.slabs, ...transposed.slabs].map(({ weights }) => weights)) scope.own(buffer);
    const target = transposed.slabs[0].weights.buffer;
    const stride = 8 * transposed.chunks;
    const padded = new Float16Array(channels * stride);
    before.forEach((value, at) => padded[Math.floor(at / joined) * stride + at % joined] = value);
    gpu.write(target, padded);
    gpu.submit(await transposeHalves(gpu, matrix, channels, transposed));
    const wanted = padded.map((value, at) => {
      const [channel, row] = [Math.floor(at / stride), at % stride - firstRow];
      return row >= 0 && row < rows ? weights[row * channels + channel] : value;
    });
    assertEquals(new Float16Array(await gpu.read(target)), wanted);
  });
}

test("adam: two steps equal those worked in f64, gradients are cleared", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const count = 300;
  const [values, ...gradients] = [1, 2, 3].map((seed) => draw(count, seed));
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const step = scope.own(await gpu.createBuffer("step", 16, usage));
  const gradient = await scope.storage("gradient", 4 * count);
  const moments = await scope.storage("moments", 8 * count);
  const buffer = await scope.upload("values", values);
  const dispatch = await adamStep(gpu, count, { step, gradient, moments, values: buffer });
  const wanted = Float64Array.from(values);
  const [means, squares] = [new Float64Array(count), new Float64Array(count)];
  for (const [i, own] of gradients.entries()) {
    const rate = 0.01 / (i + 1);
    gpu.write(step, adamWords(rate, i + 1));
    gpu.write(gradient, own);
    gpu.submit([dispatch]);
    own.forEach((g, at) => {
      means[at] = 0.9 * means[at] + 0.1 * g;
      squares[at] = 0.95 * squares[at] + 0.05 * g * g;
      const root = Math.sqrt(squares[at] / (1 - 0.95 ** (i + 1)));
      wanted[at] -= (rate * means[at] / (1 - 0.9 ** (i + 1))) / (root + 1e-8);
    });
  }
  const bound = wanted.map((value) => (Math.abs(value) + 1) * 2 ** -22);
  assertWithin(await gpu.readF32(buffer, count), { y: wanted, bound }, "values");
  assertEquals(await gpu.readF32(gradient, count), new Float32Array(count));
});

test("scale_tiles: unchanged scales stay, others are rounded, none becomes 0 or infinite", async () => {
  const gpu = await testGpu();
  using scope = createBufferScope(gpu);
  const start = Float16Array.of(0.1, -0.3, 0, 0, 60000, -60000, 2 ** -24, 1);
  const change = Float32Array.of(0, 0, 5, -5, 1, 1, -3, Math.LN2);
  const wanted = Float16Array.of(0.1, -0.3, 0, 0, 65504, -65504, 2 ** -24, 2);
  const tileScale = await scope.storage("scales", 16);
  const changes = await scope.upload("change", change);
  gpu.submit([await scaleTiles(gpu, await scope.upload("start", start), changes, whole(tileScale))]);
  assertEquals(new Float16Array(await gpu.read(tileScale)), wanted);
});
