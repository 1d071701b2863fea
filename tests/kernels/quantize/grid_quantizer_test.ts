import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { factorize } from "../../../kernels/quantize/factorize.ts";
import { quantizeToGrid } from "../../../kernels/quantize/grid_quantizer.ts";
import { orderDrift, turnTarget } from "../../../kernels/quantize/quantize_matrix.ts";
import { greenbitLayout, PAPER_LAYOUT, plainLayout } from "../../../quant/baselines/strip_layout.ts";
import { fitStripScales } from "../../../quant/baselines/strip_scales.ts";
import { stripGrid } from "../../../quant/baselines/strip_tensor.ts";
import { prepareFeedback, quantizeWithFeedback } from "../../../quant/error_feedback.ts";
import { decodeGrid } from "../../../quant/grid.ts";
import { shiftToTarget } from "../../../quant/target.ts";
import { assert } from "../../assert.ts";
import { correlatedHessian, normals, objective } from "../../quant/helpers.ts";
import { test } from "../../test.ts";
import { testGpu, uploadSquare } from "../helpers.ts";

test("quantizeToGrid: the CPU's codes but for a few, and its objective, in every order and layout", async () => {
  const gpu = await testGpu();
  // The last one has more channels than a stretch of carried errors.
  for (
    const [rows, channels, layout, order] of [
      [64, 272, plainLayout(2, 16), "channels"],
      [36, 144, plainLayout(4, 128), "groups"],
      [48, 256, greenbitLayout(32), "natural"],
      [32, 384, PAPER_LAYOUT, "channels"],
      [16, 1152, PAPER_LAYOUT, "channels"],
    ] as const
  ) {
    using scope = createBufferScope(gpu);
    const weights = normals(rows, rows * channels, 0.02);
    weights.fill(0, channels, 2 * channels);
    const hessian = correlatedHessian(channels, channels, 600);
    const settings = { damping: 0.01, order };
    const feedback = prepareFeedback(hessian, settings);
    const { scales, grouping } = fitStripScales(layout, weights, rows, feedback.diagonal, "weighted_error");
    const grid = stripGrid(layout, rows, grouping, scales);
    const factor = await factorize(gpu, scope, await uploadSquare(gpu, scope, Float32Array.from(hessian)), settings);
    const transposed = await turnTarget(gpu, scope, [rows, channels], weights, { factor });
    const onDevice = await quantizeToGrid(gpu, transposed, grid, factor);
    const onCpu = quantizeWithFeedback(weights, grid, feedback);
    const same = onDevice.reduce((sum, code, i) => sum + (code === onCpu[i] ? 1 : 0), 0) / onCpu.length;
    assert(same > 0.9, `${layout.id}: ${same} of the codes are equal`);
    const [mine, theirs] = [onDevice, onCpu].map((codes) => objective(weights, decodeGrid(codes, grid), hessian));
    assert(Math.abs(mine / theirs - 1) < 0.01, `${layout.id}: objective is ${mine / theirs} of the CPU's`);
  }
});

test("turnTarget: targets in an order of single channels are the CPU's", async () => {
  const gpu = await testGpu();
  const [rows, channels] = [32, 144];
  using scope = createBufferScope(gpu);
  const weights = normals(5, rows * channels, 0.02);
  const hessian = correlatedHessian(7, channels);
  const settings = { damping: 0.1, order: "channels" } as const;
  const feedback = prepareFeedback(hessian, settings);
  const drift = normals(8, channels * channels, 0.02 * hessian[0]);
  const correlation = Float32Array.from({ length: rows * channels }, (_, at) => {
    const [row, n] = [Math.floor(at / channels), at % channels];
    let sum = 0;
    for (let k = 0; k < channels; k++) sum += weights[row * channels + k] * drift[k * channels + n];
    return sum;
  });
  const transposed = correlation.map((_, at) => correlation[at % rows * channels + Math.floor(at / rows)]);
  const wanted = shiftToTarget(weights, correlation, feedback);
  const largest = wanted.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  for (const isDrift of [true, false]) {
    const square = await uploadSquare(gpu, scope, Float32Array.from(hessian));
    const factor = await factorize(gpu, scope, square, settings);
    const given = isDrift
      ? { drift: await scope.upload("drift", drift) }
      : { correlation: await scope.upload("correlation", transposed) };
    if (given.drift) await orderDrift(gpu, scope, factor, given.drift);
    const target = await gpu.readF32(await turnTarget(gpu, scope, [rows, channels], weights, { factor, ...given }));
    // As factorize_test.ts bounds it: a condition number below channels / damping, times the drift's own product.
    const tolerance = 2 * channels * 10 * 2 ** -24 * largest;
    for (let k = 0; k < channels; k++) {
      for (let row = 0; row < rows; row++) {
        const value = wanted[row * channels + feedback.order[k]];
        assert(
          Math.abs(target[k * rows + row] - value) <= tolerance,
          `[${k}, ${row}]: ${target[k * rows + row]}, ${value}`,
        );
      }
    }
  }
});
