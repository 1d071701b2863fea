// Claim `async`: asynchronous dequantization makes the product of a 2-bit layer up to 3.92 times faster.
//
// The paper doesn't say than what. Here are the kernels that it can mean, all of the same packed weights: the fused
// kernel with nothing asked for ahead (asynchrony alone), two and three passes over memory (the pipelines of mainstream
// code), and the product of 16-bit weights.
import { createBufferScope } from "../kernels/gpu/buffer_scope.ts";
import { f16Gemv } from "../kernels/product/f16_gemv.ts";
import { type F16Matrix, uploadF16Vector } from "../kernels/matrix/f16_matrix.ts";
import { fusedGemv, type FusedGemvOptions } from "../kernels/product/fused_gemv.ts";
import { fusedGemvOnCpu } from "../kernels/product/fused_gemv_reference.ts";
import { type Dispatch, type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { packActivations } from "../kernels/product/pack_activations.ts";
import { createScales, threePassGemv } from "../kernels/product/three_pass_gemv.ts";
import { createDequantized, dequantizeOnGpu, twoPassGemv } from "../kernels/product/two_pass_gemv.ts";
import { median } from "../model/host/statistics.ts";
import { createRandom } from "../quant/random.ts";
import { randomPacked } from "../quant/random_packed.ts";
import { COLUMNS, describe, describeRead, judgeAsync, type Measured, type Variant } from "./async_table.ts";
import type { Experiment } from "./experiment.ts";
import {
  bytesOf,
  type Ceiling,
  copiesOf,
  LAYER_SHAPES,
  type LayerShape,
  measureCeiling,
  SOFTWARE_SHAPES,
  withCopies,
} from "./kernel_bench.ts";
import type { Row } from "./results/result.ts";
import { destroyMatrices } from "../kernels/matrix/slabs.ts";
import { ERRORS, SAMPLING, timeVariants } from "./timed_variants.ts";

const OUTLIER_SHARE = 0.001;
/** Teams of a workgroup that the kernel in order is tried with; what is fastest on a shape stands in the table. */
const IN_ORDER_TEAMS = [12, 16, 20] as const;

export const async: Experiment = {
  id: "async",
  title: "Asynchronous dequantization",
  claim: "Asynchronous dequantization speeds the product of a 2-bit layer up by up to 3.92x.",
  differs:
    "The paper doesn't say over what: asynchrony alone is over the same kernel in order, the rest over a pipeline.",
  needsGpu: true,
  needsModel: false,
  async run({ quick, seed, progress }) {
    using gpu = await openGpu();
    const shapes = gpu.isSoftware ? SOFTWARE_SHAPES : quick ? LAYER_SHAPES.slice(0, 4) : LAYER_SHAPES;
    const ceiling = await measureCeiling(gpu);
    const rows: Row[] = [describeRead(ceiling)];
    const samples: Record<string, readonly number[]> = { "read_memory: us": ceiling.timing.samplesUs };
    const byShape = new Map<string, Measured>();
    for (const [i, shape] of shapes.entries()) {
      progress(i / shapes.length, `${shape.model} ${shape.layer}`);
      const name = `${shape.rows}x${shape.channels}`;
      const measured = byShape.get(name) ?? await measureShape(gpu, shape, ceiling, seed);
      byShape.set(name, measured);
      // Where everything fits in the cache, fractions of a long read mean nothing.
      rows.push(...describe(shape, measured, gpu.isSoftware ? undefined : ceiling));
      for (const [variant, timesUs] of Object.entries(measured.samples)) {
        // Models share shapes: without model and layer one's samples would overwrite another's.
        samples[`${shape.model} ${shape.layer} ${shape.rows}x${shape.channels} ${variant}: us`] = timesUs;
      }
    }
    return {
      settings: {
        "read_memory": "one long read, whose bandwidth the fractions are of, 1 where a kernel is faster",
        "activations":
          "fused: 16-bit block fixed point, packed before or, in fused_async_norm, normed and packed by the kernel " +
          "itself; f16 and two_pass: f16",
        "rotation": "copies of the weights that together exceed the cache; dispatches wait for each other",
        "three_kernels": "scales decoded to f16 in memory, then weights, then the f16 product: mainstream code",
        "two_pass": "weights decoded to f16 in memory, scales on the way, then the f16 product",
        "fused_sync":
          "fused_async in order: the same layout and arithmetic, a step's words asked for when it needs them, " +
          `without barriers; of ${IN_ORDER_TEAMS.join(", ")} teams a workgroup, whichever is fastest on the shape`,
        "outliers": `${100 * OUTLIER_SHARE} % of the weights, as many in each row`,
        "sampling": SAMPLING,
        "errors": ERRORS,
      },
      columns: COLUMNS,
      rows,
      samples,
      verdict: judgeAsync(rows),
    };
  },
};

type Sequences = readonly (readonly Dispatch[])[];

async function measureShape(gpu: Gpu, shape: LayerShape, { tickNs }: Ceiling, seed: number): Promise<Measured> {
  const { rows, channels } = shape;
  const random = createRandom(seed);
  const x = Float32Array.from({ length: channels }, () => random.normal());
  const packed = packActivations(x);
  const x128 = new Float32Array(Math.ceil(channels / 128) * 128).map((_, i) => x[i] ?? 0);
  using scope = createBufferScope(gpu);
  const x32 = await scope.upload("x", x);
  const normWeight = await scope.upload("weight", new Float32Array(channels).fill(1));
  const activations = await scope.upload("activations", packed);
  const x16 = scope.own(await uploadF16Vector(gpu, x128));
  const y = { buffer: await scope.storage("y", rows * 4) };
  const input = { kind: "packed", activations } as const;
  const norm = { kind: "rms_norm", x: x32, weight: normWeight, epsilon: 1e-5 } as const;
  const output = { kind: "store", y } as const;
  const tensor = randomPacked(rows, channels, 0, seed);
  const sparse = randomPacked(rows, channels, OUTLIER_SHARE, seed);
  const copies = copiesOf(gpu, bytesOf(tensor));
  // Rows of the random matrices repeat after 64, so that the CPU can check all of them.
  const [dense, withOutliers] = [0, OUTLIER_SHARE].map((share) =>
    fusedGemvOnCpu(randomPacked(64, channels, share, seed), packed)
  );
  const samples = await withCopies(
    gpu,
    tensor,
    copies,
    (matrices) =>
      withCopies(gpu, sparse, copies, async (sparseMatrices) => {
        const scratch = {
          scales: scope.own(await createScales(gpu, matrices[0])),
          weights: await createDequantized(gpu, matrices[0]),
        };
        const f16Copies: F16Matrix[] = [scratch.weights];
        while (f16Copies.length < copiesOf(gpu, f16Bytes(shape))) {
          f16Copies.push(await createDequantized(gpu, matrices[0]));
        }
        // Real weights in all of them: zeros can be faster.
        for (const copy of f16Copies) gpu.submit(await dequantizeOnGpu(gpu, matrices[0], copy));
        const fused = (options: FusedGemvOptions = {}, of = matrices) =>
          all(of, (m) => fusedGemv(gpu, m, input, output, options));
        const inOrder = await Promise.all(IN_ORDER_TEAMS.map((teams) => fused({ synchronous: true, teams })));
        const sequences = {
          two_pass: await all(matrices, (m) => twoPassGemv(gpu, m, scratch.weights, x16, y)),
          three_kernels: await all(
            matrices,
            async (m) => Object.values(await threePassGemv(gpu, m, scratch, x16, y)).flat(),
          ),
          f16: await all(f16Copies, (m) => f16Gemv(gpu, m, { kind: "half", x: x16 }, output)),
          fused_async: await fused(),
          fused_async_norm: await all(matrices, (m) => fusedGemv(gpu, m, norm, output)),
          fused_async_outliers: await fused({}, sparseMatrices),
        };
        for (const [first] of [sequences.fused_async, ...inOrder]) {
          await assertCorrect(gpu, first, y.buffer, rows, dense);
        }
        await assertCorrect(gpu, sequences.fused_async_outliers[0], y.buffer, rows, withOutliers);
        const fused_sync = await fastest(gpu, inOrder, tickNs);
        const samples = await timeVariants(gpu, { ...sequences, fused_sync }, tickNs);
        destroyMatrices(gpu, ...f16Copies);
        return samples;
      }),
  );
  return { samples, bytes: bytesToMove(shape, bytesOf(tensor), bytesOf(sparse)) };
}

/** Of several ways to compute the same, the one with the least median. */
async function fastest(gpu: Gpu, ways: readonly Sequences[], tickNs: number): Promise<Sequences> {
  const samples = await timeVariants(gpu, Object.fromEntries(ways.entries()), tickNs);
  const medians = ways.map((_, i) => median(samples[i]));
  return ways[medians.indexOf(Math.min(...medians))];
}

function f16Bytes({ rows, channels }: LayerShape): number {
  return rows * channels * 2;
}

/** What each variant has to read and write at least; decoded weights and scales are written and read again. */
function bytesToMove(shape: LayerShape, packed: number, sparse: number): Record<Variant, number> {
  const decoded = 2 * f16Bytes(shape);
  return {
    two_pass: packed + decoded,
    three_kernels: packed + decoded + decoded / 16,
    f16: f16Bytes(shape),
    fused_sync: packed,
    fused_async: packed,
    fused_async_norm: packed,
    fused_async_outliers: sparse,
  };
}

function all<M>(matrices: readonly M[], dispatches: (matrix: M) => Promise<Dispatch[]>): Promise<Dispatch[][]> {
  return Promise.all(matrices.map(dispatches));
}

/** Checks a product whose rows repeat those that are expected. */
async function assertCorrect(
  gpu: Gpu,
  dispatches: readonly Dispatch[],
  y: GPUBuffer,
  rows: number,
  expected: ReturnType<typeof fusedGemvOnCpu>,
) {
  // What a kernel leaves out must not pass by the result of the one before.
  gpu.write(y, new Float32Array(rows).fill(NaN));
  gpu.submit(dispatches);
  const actual = await gpu.readF32(y, rows);
  for (let row = 0; row < rows; row++) {
    const i = row % expected.y.length;
    if (!(Math.abs(actual[row] - expected.y[i]) <= expected.bound[i])) {
      throw new Error(`row ${row} of ${rows} is ${actual[row]}, must be ${expected.y[i]}`);
    }
  }
}
