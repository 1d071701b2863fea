// Claim `cost`: runtime cost and hardware cost fall by up to 2.70 and 2.81 times.
//
// The paper gives the two ratios without their definitions. Choice: hardware cost is the number of GPUs that hold the
// model, runtime cost is GPU-seconds a token, both times the price of one GPU, which is the same for both formats:
//
//     hardware ratio = GPUs(f16) / GPUs(mixed)
//     runtime ratio = GPUs(f16) x seconds a token(f16) / (GPUs(mixed) x seconds a token(mixed))
//
// with GPUs = ceil(memory / memory of a GPU) and memory = weights + key-value cache of one sequence. Seconds a token
// are measured on one device that holds the model; several GPUs are taken to work one after the other, each on its
// layers, and one that waits for another is paid for.
import { unlessOutOfMemory } from "../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { totalBits } from "../quant/bits.ts";
import { quantizedBits, type Quantizer } from "../quant/quantize.ts";
import { SETTINGS } from "../quant/recipe.ts";
import { uploadWeights } from "../model/engine/engine_weights.ts";
import { LINEAR_KINDS, linearShape } from "../model/llama/layer.ts";
import { configOfShape, type Format, FORMATS, randomSource } from "../model/engine/random_source.ts";
import { cacheBytes } from "../model/engine/sequence_cache.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import { measureSpeed } from "../model/engine/speed.ts";
import { type Estimate, medianEstimate, ratioOf, scaled } from "../model/host/statistics.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import { DEFAULT_PACKING } from "./packed/real_weights.ts";
import { describeNear, formatEstimate, statusOfAtLeast, statusOfParts } from "./results/judge.ts";
import { COST_RATIOS } from "./results/paper.ts";
import { type Column, estimateCells, estimateColumns, estimateOf, type Row, type Verdict } from "./results/result.ts";

/** What a GPU-second costs, in words. */
export const PRICE =
  "that of one GPU cancels out; several work one after the other, and one that waits for another is paid for";

/** The ratios of the paper's fourth version. */
const LATER_RATIOS = { runtime: 2.53, hardware: 2.29 };
/** Tokens of the key-value cache that is counted. */
const CONTEXT = 4096;
/** Tokens in the cache when the speed is measured. */
const MEASURED_CONTEXT = 1024;

/** GPUs by the memory that their data sheets give, in 10^9 bytes. */
const GPUS = [
  { name: "24 GB", example: "NVIDIA GeForce RTX 4090", bytes: 24e9 },
  { name: "40 GB", example: "NVIDIA A100 PCIe 40GB", bytes: 40e9 },
  { name: "80 GB", example: "NVIDIA H100 SXM", bytes: 80e9 },
  { name: "141 GB", example: "NVIDIA H200 SXM", bytes: 141e9 },
] as const;

const MODELS = ["llama-2-7b", "llama-2-13b", "llama-3-8b", "llama-2-70b"];

export const cost: Experiment = {
  id: "cost",
  title: "Cost",
  claim: "Runtime cost and hardware cost fall by up to 2.70x and 2.81x.",
  differs: "The paper defines neither; ours are GPUs that hold the model, and GPU-seconds a token, at equal prices.",
  needsGpu: true,
  needsModel: false,
  async run(context) {
    const rows: Row[] = [];
    const samples: Record<string, readonly number[]> = {};
    for (const [i, name] of MODELS.entries()) {
      const shape = MODEL_SHAPES.find((candidate) => candidate.name === name)!;
      context.progress(i / MODELS.length, name);
      // A quick run measures one model; the memory of all follows from their shapes.
      const speeds = context.quick && i > 0 ? {} : await measureFormats(shape, context, samples);
      for (const gpu of GPUS) rows.push(...describe(shape, gpu, speeds));
    }
    return {
      settings: {
        "memory": `weights with embedding and head in 16 bits, and the f16 key-value cache of ${CONTEXT} tokens`,
        "twobit": DEFAULT_PACKING,
        "GPUs": GPUS.map(({ name, example }) => `${name}: ${example}`).join("; ") + " (memory by their data sheets)",
        "seconds a token": `measured here, batch 1, context ${MEASURED_CONTEXT}, where the model fits on one device`,
        "price": PRICE,
      },
      columns: COLUMNS,
      rows,
      samples,
      verdict: judgeCost(rows),
    };
  },
};

type Speeds = Readonly<Partial<Record<Format, Estimate>>>;

/** What `quantize` packs by default. */
const PACKED: Quantizer = { kind: "twobit", settings: SETTINGS };

/** Bytes of a model and of its key-value cache. */
function memoryBytes(shape: ModelShape, format: Format): number {
  const { vocabulary, hidden, layers, tiedHead } = shape;
  let bits = 16 * vocabulary * hidden * (tiedHead ? 1 : 2) + 32 * hidden * (2 * layers + 1);
  for (const kind of LINEAR_KINDS) {
    const [rows, channels] = linearShape(shape, kind);
    bits += layers * (format === "f16" ? 16 * rows * channels : totalBits(quantizedBits(rows, channels, PACKED)));
  }
  return bits / 8 + cacheBytes(configOfShape(shape, CONTEXT), CONTEXT);
}

/** Tokens a second in each format, measured where `end_to_end` hasn't; empty on a software adapter. */
async function measureFormats(
  shape: ModelShape,
  context: ExperimentContext,
  samples: Record<string, readonly number[]>,
): Promise<Speeds> {
  const speeds: Partial<Record<Format, Estimate>> = {};
  using gpu = await openGpu();
  for (const format of gpu.isSoftware ? [] : FORMATS) {
    const speed = context.decodeSpeeds.get(`${shape.name} ${format} ${MEASURED_CONTEXT}`) ??
      await unlessOutOfMemory(() => measureFormat(gpu, shape, format, context));
    if (!speed?.length) continue;
    samples[`${shape.name} ${format}: decoded tokens/s`] = speed;
    speeds[format] = medianEstimate(speed);
  }
  return speeds;
}

async function measureFormat(
  gpu: Gpu,
  shape: ModelShape,
  format: Format,
  { quick, seed }: ExperimentContext,
): Promise<readonly number[]> {
  const plan = { promptTokens: 0, generateTokens: 32, depth: MEASURED_CONTEXT, repetitions: quick ? 3 : 5 };
  using weights = await uploadWeights(gpu, randomSource(configOfShape(shape, 2 * MEASURED_CONTEXT), format, seed));
  return (await measureSpeed(gpu, weights, plan)).generation;
}

function describe(shape: ModelShape, gpu: typeof GPUS[number], speeds: Speeds): Row[] {
  const gpus = (format: Format) => Math.ceil(memoryBytes(shape, format) / gpu.bytes);
  const { f16: full, twobit: mixed } = speeds;
  const faster = full && mixed && ratioOf(mixed, full);
  const hardware = gpus("f16") / gpus("twobit");
  return FORMATS.map((format) => ({
    model: shape.name,
    gpu: gpu.name,
    format,
    memory_bytes: memoryBytes(shape, format),
    gpus: gpus(format),
    ...estimateCells("tokens_per_s", speeds[format]),
    gpu_seconds_per_1000_tokens: speeds[format] ? (1000 * gpus(format)) / speeds[format].value : null,
    hardware_ratio: format === "f16" ? 1 : hardware,
    memory_ratio: memoryBytes(shape, "f16") / memoryBytes(shape, format),
    ...(format === "f16"
      ? { cost_ratio: 1, cost_ratio_error: null }
      : estimateCells("cost_ratio", faster && scaled(faster, hardware))),
  }));
}

const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "gpu", label: "GPU", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "memory_bytes", label: "memory", unit: "bytes" },
  { key: "gpus", label: "GPUs", unit: "" },
  ...estimateColumns({ key: "tokens_per_s", label: "speed", unit: "tokens/s", timed: true }),
  { key: "gpu_seconds_per_1000_tokens", label: "1000 tokens", unit: "GPU-seconds", timed: true },
  { key: "memory_ratio", label: "memory, f16 over this", unit: "x" },
  { key: "hardware_ratio", label: "hardware cost, f16 over this", unit: "x" },
  ...estimateColumns({ key: "cost_ratio", label: "runtime cost, f16 over this", unit: "x", timed: true }),
];

/** Compares the largest ratios with the paper's. A part that wasn't measured is neither reached nor missed. */
export function judgeCost(rows: readonly Row[]): Verdict {
  const equal = largestRatio(rows.filter((row) => row.hardware_ratio === 1), "cost_ratio");
  const more = { runtime: equal ? ` (${formatEstimate(equal, 3)} on as many GPUs)` : "", hardware: "" };
  const parts = ([["runtime", "cost_ratio"], ["hardware", "hardware_ratio"]] as const).map(([part, key]) => {
    const ratio = largestRatio(rows, key);
    return {
      text: `${part} ${ratio ? describeRatio(ratio) : "not measured"}${more[part]}`,
      ...(ratio && { status: statusOfAtLeast(ratio, COST_RATIOS[part]) }),
      near: ratio ? describeNear(`The ${part} ratio`, ratio, COST_RATIOS[part]) : "",
    };
  });
  const found = parts.flatMap(({ status }) => status ?? []);
  const isMissed = found.length < parts.length && found.every((status) => status === "not reproduced");
  return {
    paper: `runtime ${COST_RATIOS.runtime}, hardware ${COST_RATIOS.hardware} (version 4: ${LATER_RATIOS.runtime}, ` +
      `${LATER_RATIOS.hardware})`,
    measured: found.length === 0 ? null : parts.map(({ text }) => text).join(", "),
    unit: "x at most, over models and GPUs",
    status: isMissed
      ? "not measured"
      : statusOfParts(found.length < parts.length ? [...found, "not reproduced"] : found),
    note:
      "Reproduced means: both ratios exceed the paper's first ones by more than their error; partly, one of them, or " +
      `within the error.${
        parts.map(({ near }) => near).join("")
      } GPUs are counted and have no error. One that waits for another is paid for.${
        equal
          ? ` The runtime ratio on as many GPUs in both formats is "${
            statusOfAtLeast(equal, COST_RATIOS.runtime)
          }" by itself.`
          : ""
      } By our definitions of both (see experiments/cost.ts); the paper's are not known.`,
  };
}

/** The largest of the packed format's ratios; those of f16 are 1 by definition. */
function largestRatio(rows: readonly Row[], key: "cost_ratio" | "hardware_ratio"): Estimate | undefined {
  return rows.filter((row) => row.format !== "f16" && typeof row[key] === "number")
    .map((row) => estimateOf(row, key))
    .toSorted((a, b) => b.value - a.value).at(0);
}

function describeRatio(ratio: Estimate): string {
  return ratio.standardError > 0 ? formatEstimate(ratio) : ratio.value.toFixed(2);
}
