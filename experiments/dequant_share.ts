// Claim `dequant_share`: dequantization takes more than half of the time of mainstream kernels, since scales are
// quantized too.
import { createBufferScope } from "../kernels/gpu/buffer_scope.ts";
import { f16Gemv } from "../kernels/product/f16_gemv.ts";
import { type F16Matrix, uploadF16Vector } from "../kernels/matrix/f16_matrix.ts";
import { fusedGemv } from "../kernels/product/fused_gemv.ts";
import { type Dispatch, type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { packActivations } from "../kernels/product/pack_activations.ts";
import type { PackedMatrix } from "../kernels/matrix/packed_matrix.ts";
import { destroyMatrices } from "../kernels/matrix/slabs.ts";
import { createScales, threePassGemv } from "../kernels/product/three_pass_gemv.ts";
import { createDequantized, dequantizeOnGpu } from "../kernels/product/two_pass_gemv.ts";
import type { Estimate } from "../model/host/statistics.ts";
import { createRandom } from "../quant/random.ts";
import { randomPacked } from "../quant/random_packed.ts";
import {
  ablationRows,
  type AblationSamples,
  PAPER_SHARES,
  pipelineRows,
  type PipelineSamples,
  type PipelineShares,
} from "./dequant_steps.ts";
import type { Experiment } from "./experiment.ts";
import {
  bytesOf,
  copiesOf,
  LAYER_SHAPES,
  type LayerShape,
  measureCeiling,
  SOFTWARE_SHAPES,
  withCopies,
} from "./kernel_bench.ts";
import { describeNear, formatEstimate, statusOfAtLeast, statusOfParts } from "./results/judge.ts";
import { type Column, estimateColumns, type Row, type Verdict } from "./results/result.ts";
import { ERRORS, SAMPLING, timeVariants } from "./timed_variants.ts";

/** The model whose layers are ablated: twelve kernels more a shape, which take long to compile. */
const ABLATED_MODEL = /Llama-2 7B$/;
/** The share that dequantization exceeds, by the paper. */
const CLAIMED_SHARE = 0.5;
/** What the override `without` of product/parts/decode.wgsl leaves out in each kernel of an ablation. */
const WITHOUT = { full: 0, noSecond: 1, noOrders: 1 + 2, bare: 1 + 2 + 4 } as const;

export const dequantShare: Experiment = {
  id: "dequant_share",
  title: "Share of dequantization",
  claim: "Dequantization takes more than 50 % of the time of mainstream kernels, because scales are quantized too.",
  differs:
    "The paper's three kernels in WGSL, without tensor cores; arithmetic alone inside one kernel is a second table.",
  needsGpu: true,
  needsModel: false,
  async run({ quick, seed, progress }) {
    using gpu = await openGpu();
    const shapes = gpu.isSoftware ? SOFTWARE_SHAPES : distinct(quick ? LAYER_SHAPES.slice(0, 4) : LAYER_SHAPES);
    const { tickNs } = await measureCeiling(gpu);
    const rows: Row[] = [];
    const samples: Record<string, readonly number[]> = {};
    const shares: PipelineShares[] = [];
    for (const [i, shape] of shapes.entries()) {
      progress(i / shapes.length, `${shape.model} ${shape.layer}`);
      const found = await measureShape(gpu, shape, tickNs, seed);
      const name = `${shape.rows}x${shape.channels}`;
      const pipeline = pipelineRows(name, found.pipeline);
      shares.push(pipeline);
      rows.push(...pipeline.rows, ...found.ablations.flatMap((each) => ablationRows(name, each.variant, each.samples)));
      for (
        const { variant, samples: times } of [{ variant: "three_kernels", samples: found.pipeline }, ...found.ablations]
      ) {
        for (const [part, values] of Object.entries(times)) samples[`${name} ${variant}: us, ${part}`] = values;
      }
    }
    return { settings: SETTINGS, columns: COLUMNS, rows, samples, verdict: judgeShares(shares) };
  },
};

const SETTINGS = {
  "three_kernels":
    "the pipeline of mainstream code (GPTQ's and Greenbit's): one kernel decodes scales to f16 in memory (second order), " +
    "one decodes weights to f16 in memory (first order), one multiplies; each by itself and all in sequence, on the same " +
    "buffers, of which decoded scales and weights are one each: where these fit in the cache, the product reads them there, " +
    "in the sequence and by itself. Other is the sequence minus the sum of the three, so waiting between them; each of these has " +
    "a launch of its own in it",
  "ablation":
    "two_pass, fused_sync, fused_async, on the shapes of Llama-2 7B: the same kernel with one stage after the other taken " +
    "out; what is left is load (and, in two_pass, store). Each is a program of its own to the driver's compiler, which may " +
    "make one without a stage slower",
  "why they differ":
    "the pipeline's shares are times of kernels, which move scales and weights through memory; the ablation's are " +
    "arithmetic alone, next to nothing beside the loads that hide it",
  "share":
    "of the sequence, or of its parts' sum where that is longer; in ablations of the whole kernel, or of the sum of the " +
    "steps that take time where without one the rest takes longer",
  "sampling": SAMPLING,
  "errors": ERRORS,
};

const COLUMNS: readonly Column[] = [
  { key: "shape", label: "rows x channels", unit: "" },
  { key: "variant", label: "kernel", unit: "" },
  { key: "step", label: "step", unit: "" },
  ...estimateColumns({ key: "time_us", label: "time", unit: "us", timed: true }),
  ...estimateColumns({ key: "share", label: "share", unit: "share", timed: true }),
  { key: "slow_samples", label: "slow samples", unit: "", timed: true },
  { key: "note", label: "note", unit: "", timed: true },
  { key: "paper_share", label: "paper", unit: "share" },
];

/** Shapes that models share are measured once. */
function distinct(shapes: readonly LayerShape[]): LayerShape[] {
  return [...new Map(shapes.map((shape) => [`${shape.rows}x${shape.channels}`, shape])).values()];
}

async function measureShape(gpu: Gpu, shape: LayerShape, tickNs: number, seed: number) {
  const { rows, channels } = shape;
  const random = createRandom(seed);
  const x = Float32Array.from({ length: Math.ceil(channels / 128) * 128 }, () => random.normal());
  using scope = createBufferScope(gpu);
  const activations = await scope.upload("activations", packActivations(x.subarray(0, channels)));
  const x16 = scope.own(await uploadF16Vector(gpu, x));
  const y = { buffer: await scope.storage("y", rows * 4) };
  const tensor = randomPacked(rows, channels, 0, seed);
  return await withCopies(gpu, tensor, copiesOf(gpu, bytesOf(tensor)), async (matrices) => {
    const scratch = {
      scales: scope.own(await createScales(gpu, matrices[0])),
      weights: await createDequantized(gpu, matrices[0]),
    };
    const passes = await all(matrices, (m) => threePassGemv(gpu, m, scratch, x16, y));
    const pipeline = await timePipeline(gpu, passes, tickNs);
    const ablations = ABLATED_MODEL.test(shape.model)
      ? await ablateKernels(gpu, matrices, { weights: scratch.weights, x16, activations, y }, tickNs)
      : [];
    destroyMatrices(gpu, scratch.weights);
    return { pipeline, ablations };
  });
}

/** What the kernels of an ablation read and write beside their matrices. */
interface Operands {
  /** Decoded. */
  readonly weights: F16Matrix;
  readonly x16: GPUBuffer;
  readonly activations: GPUBuffer;
  readonly y: { readonly buffer: GPUBuffer };
}

/** Ablations of all kernels that are one, or, without multiplication, have one pass. */
async function ablateKernels(
  gpu: Gpu,
  matrices: readonly PackedMatrix[],
  { weights, x16, activations, y }: Operands,
  tickNs: number,
) {
  const output = { kind: "store", y } as const;
  const multiply = await f16Gemv(gpu, weights, { kind: "half", x: x16 }, output);
  // Without multiplication, what is left of two_pass is the decoding kernel's load and store.
  const twoPass = await ablate(gpu, matrices, tickNs, async (matrix, without) => [
    ...await dequantizeOnGpu(gpu, matrix, weights, { without: without & 3 }),
    ...(without & 4 ? [] : multiply),
  ]);
  const fused = (synchronous: boolean) =>
    ablate(
      gpu,
      matrices,
      tickNs,
      (matrix, without) => fusedGemv(gpu, matrix, { kind: "packed", activations }, output, { synchronous, without }),
    );
  return [
    { variant: "two_pass", samples: twoPass },
    { variant: "fused_sync", samples: await fused(true) },
    { variant: "fused_async", samples: await fused(false) },
  ];
}

type Passes = Awaited<ReturnType<typeof threePassGemv>>;

function timePipeline(gpu: Gpu, passes: readonly Passes[], tickNs: number): Promise<PipelineSamples> {
  return timeVariants(gpu, {
    secondOrder: passes.map(({ secondOrder }) => secondOrder),
    firstOrder: passes.map(({ firstOrder }) => firstOrder),
    multiply: passes.map(({ multiply }) => multiply),
    sequence: passes.map(({ secondOrder, firstOrder, multiply }) => [...secondOrder, ...firstOrder, ...multiply]),
  }, tickNs);
}

/** Times with one stage after the other left out. */
async function ablate(
  gpu: Gpu,
  matrices: readonly PackedMatrix[],
  tickNs: number,
  dispatches: (matrix: PackedMatrix, without: number) => Promise<Dispatch[]>,
): Promise<AblationSamples> {
  const sequences = (without: number) => all(matrices, (matrix) => dispatches(matrix, without));
  return await timeVariants(gpu, {
    full: await sequences(WITHOUT.full),
    noSecond: await sequences(WITHOUT.noSecond),
    noOrders: await sequences(WITHOUT.noOrders),
    bare: await sequences(WITHOUT.bare),
  }, tickNs);
}

function all<T, U>(values: readonly T[], make: (value: T) => Promise<U>): Promise<U[]> {
  return Promise.all(values.map(make));
}

/** Judges the claim by the pipeline's shares, those of each shape. */
export function judgeShares(shares: readonly PipelineShares[]): Verdict {
  const [least, most] = extremes(shares.map(({ dequantization }) => dequantization));
  return {
    paper: `${PAPER_SHARES.second_order + PAPER_SHARES.first_order} (more than ${CLAIMED_SHARE})`,
    unit: "share of the three-kernel pipeline's time in both orders of dequantization, over all shapes",
    measured: formatRange([least, most]),
    status: statusOfParts([least, most].map((share) => statusOfAtLeast(share, CLAIMED_SHARE))),
    note:
      `Reproduced means: more than ${CLAIMED_SHARE} on every shape, by more than the share's error; partly, on some or ` +
      `within the error.${describeNear("The least share", least, CLAIMED_SHARE)}` +
      `${describeNear("The largest share", most, CLAIMED_SHARE)} Second order alone is ` +
      `${
        formatRange(extremes(shares.map(({ secondOrder }) => secondOrder)))
      } (paper ${PAPER_SHARES.second_order}): most of ` +
      "the time goes into decoding weights and taking them through memory. By the paper's own split, kernels of a " +
      "pipeline; arithmetic alone, inside one kernel, takes far less (rows two_pass, fused_sync and fused_async).",
  };
}

function extremes(shares: readonly Estimate[]): [least: Estimate, most: Estimate] {
  const sorted = shares.toSorted((a, b) => a.value - b.value);
  return [sorted[0], sorted[sorted.length - 1]];
}

function formatRange([least, most]: readonly [Estimate, Estimate]): string {
  return `${formatEstimate(least, 3)} to ${formatEstimate(most, 3)}`;
}
