/**
 * Claim `dequant_share`: dequantization takes more than half of the time of mainstream kernels, since scales are
 * quantized too.
 *
 * @module
 */
import { f16Gemv } from "../kernels/product/f16_gemv.ts";
import { uploadF16Vector } from "../kernels/matrix/f16_matrix.ts";
import { fusedGemv } from "../kernels/product/fused_gemv.ts";
import { type Dispatch, type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { packActivations } from "../kernels/product/pack_activations.ts";
import { createDequantized, dequantizeOnGpu } from "../kernels/product/two_pass_gemv.ts";
import { createRandom } from "../quant/random.ts";
import { randomPacked } from "../quant/random_packed.ts";
import type { Experiment } from "./experiment.ts";
import {
  bytesOf,
  copiesOf,
  LAYER_SHAPES,
  type LayerShape,
  measureCeiling,
  SOFTWARE_SHAPES,
  timeRotation,
  withCopies,
} from "./kernel_bench.ts";
import type { Cell, Row } from "./results/result.ts";
import { destroyMatrices } from "../kernels/matrix/slabs.ts";

/** The paper's split of a kernel's time, from a later version of it. */
const PAPER_SHARES: Readonly<Record<string, number>> = { second_order: 0.191, first_order: 0.327, multiply: 0.434 };

/** What the override `without` of product/parts/decode.wgsl leaves out. */
const SECOND_ORDER = 1;
const FIRST_ORDER = 2;
const MULTIPLICATION = 4;

type Times = Readonly<Record<"full" | "noSecond" | "noOrders" | "bare", number>>;

export const dequantShare: Experiment = {
  id: "dequant_share",
  title: "Share of dequantization",
  claim: "Dequantization takes more than 50 % of the time of mainstream kernels, because scales are quantized too.",
  needsGpu: true,
  needsModel: false,
  async run({ quick, seed, progress }) {
    using gpu = await openGpu();
    const shapes = gpu.isSoftware ? SOFTWARE_SHAPES : LAYER_SHAPES.slice(0, quick ? 1 : 12).filter(isLarge);
    const { tickNs } = await measureCeiling(gpu);
    const rows: Row[] = [];
    for (const [i, shape] of shapes.entries()) {
      progress(i / shapes.length, `${shape.model} ${shape.layer}`);
      rows.push(...await measureShape(gpu, shape, tickNs, seed));
    }
    const dequantization = rows.filter(({ variant, step }) => variant === "two_pass" && String(step).endsWith("order"));
    const least = Math.min(...shapes.map(({ rows: r, channels }) => {
      const own = dequantization.filter(({ shape }) => shape === `${r}x${channels}`);
      return own.reduce((sum, { share }) => sum + Number(share), 0);
    }));
    return {
      settings: {
        method:
          "the same kernel with one stage after the other taken out: second-order scales, first-order codes and " +
          "zeros, multiplication; what is left is load (and, in two_pass, store)",
      },
      columns: [
        { key: "shape", label: "rows x channels", unit: "" },
        { key: "variant", label: "kernel", unit: "" },
        { key: "step", label: "step", unit: "" },
        { key: "time_us", label: "time", unit: "us", timed: true },
        { key: "share", label: "share", unit: "share", timed: true },
        { key: "paper_share", label: "paper", unit: "share" },
      ],
      rows,
      verdict: {
        paper: "more than 0.5",
        measured: gpu.isSoftware ? null : least,
        unit: "share of the two-pass product's time in both orders of dequantization, on the worst shape",
        status: gpu.isSoftware ? "not measured" : least > 0.5 ? "reproduced" : "not reproduced",
        note: gpu.isSoftware
          ? "A software adapter shows that the kernels run, not how fast."
          : "Arithmetic alone; the pass over memory that two_pass needs for it is its own row.",
      },
    };
  },
};

function isLarge({ layer }: LayerShape): boolean {
  return layer === "gate+up" || layer === "down";
}

async function measureShape(gpu: Gpu, shape: LayerShape, tickNs: number, seed: number): Promise<Row[]> {
  const { rows, channels } = shape;
  const random = createRandom(seed);
  const x = Float32Array.from({ length: Math.ceil(channels / 128) * 128 }, () => random.normal());
  const activations = await gpu.uploadStorage("activations", packActivations(x.subarray(0, channels)));
  const x16 = await uploadF16Vector(gpu, x);
  const y = { buffer: await gpu.createStorage("y", rows * 4) };
  const input = { kind: "packed", activations } as const;
  const output = { kind: "store", y } as const;
  const tensor = randomPacked(rows, channels, 0, seed);
  const found = await withCopies(gpu, tensor, copiesOf(gpu, bytesOf(tensor)), async (matrices) => {
    const time = async (dispatches: (matrix: typeof matrices[number]) => Promise<Dispatch[]>) =>
      (await timeRotation(gpu, await Promise.all(matrices.map(dispatches)), tickNs)).medianUs;
    const fused = (synchronous: boolean) =>
      ablate((without) => time((matrix) => fusedGemv(gpu, matrix, input, output, { synchronous, without })));
    const scratch = await createDequantized(gpu, matrices[0]);
    const decode = await ablate((without) => time((matrix) => dequantizeOnGpu(gpu, matrix, scratch, without)));
    gpu.submit(await dequantizeOnGpu(gpu, matrices[0], scratch));
    const multiply = await time(() => f16Gemv(gpu, scratch, { kind: "half", x: x16 }, output));
    destroyMatrices(gpu, scratch);
    return { decode, multiply, sync: await fused(true), async: await fused(false) };
  });
  for (const buffer of [activations, x16, y.buffer]) gpu.destroyBuffer(buffer);
  const name = `${rows}x${channels}`;
  return [
    ...steps(name, "two_pass", {
      load: found.decode.noOrders,
      first_order: found.decode.noSecond - found.decode.noOrders,
      second_order: found.decode.full - found.decode.noSecond,
      multiply: found.multiply,
    }),
    ...steps(name, "fused_sync", stepsOf(found.sync)),
    ...steps(name, "fused_async", stepsOf(found.async)),
  ];
}

/** Times with one stage after the other left out. */
async function ablate(time: (without: number) => Promise<number>): Promise<Times> {
  return {
    full: await time(0),
    noSecond: await time(SECOND_ORDER),
    noOrders: await time(SECOND_ORDER + FIRST_ORDER),
    bare: await time(SECOND_ORDER + FIRST_ORDER + MULTIPLICATION),
  };
}

function stepsOf({ full, noSecond, noOrders, bare }: Times): Record<string, number> {
  return {
    load: bare,
    first_order: noSecond - noOrders,
    second_order: full - noSecond,
    multiply: noOrders - bare,
  };
}

function steps(shape: string, variant: string, times: Readonly<Record<string, number>>): Row[] {
  const total = Object.values(times).reduce((sum, time) => sum + time, 0);
  return Object.entries(times).map(([step, time]): Record<string, Cell> => ({
    shape,
    variant,
    step,
    time_us: time,
    share: time / total,
    paper_share: PAPER_SHARES[step] ?? null,
  }));
}
