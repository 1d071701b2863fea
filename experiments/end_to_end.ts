/**
 * Claim `end_to_end`: Llama2-7b runs 1.74 times faster than the original.
 *
 * @module
 */
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../model/engine/engine_weights.ts";
import type { OperationKind } from "../model/engine/layer_operations.ts";
import { configOfShape, type Format, FORMATS, randomSource } from "../model/engine/random_source.ts";
import { createSession } from "../model/engine/session.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import {
  measureGeneration,
  measurePrompt,
  type OperationTimes,
  sampleText,
  timeEncoding,
  timeOperations,
} from "../model/engine/speed.ts";
import { median } from "../model/host/statistics.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import { measureCeiling } from "./kernel_bench.ts";
import type { Column, Row, Verdict } from "./results/result.ts";
import { DOES_NOT_FIT, unlessOutOfMemory } from "./unless_out_of_memory.ts";

/** The paper's speed-up of Llama-2 7B over its 16-bit original. */
const CLAIMED_SPEEDUP = 1.74;
/** Where the claim is judged. */
const [CLAIMED_MODEL, CLAIMED_CONTEXT] = ["llama-2-7b", 128];

/** What is measured. */
interface Plan {
  readonly shapes: readonly ModelShape[];
  /** Tokens in the cache before the measured ones. */
  readonly contexts: readonly number[];
  /** Tokens generated in a sample. */
  readonly generateTokens: number;
  readonly promptTokens: number;
}

const LINEAR: readonly OperationKind[] = ["qkv", "o", "gate+up", "down", "head"];
const OPERATIONS: readonly OperationKind[] = [...LINEAR, "attention", "pick"];
/** What runs beside layers that run whole. */
const OUTSIDE_LAYERS: readonly OperationKind[] = ["head", "pick"];

export const endToEnd: Experiment = {
  id: "end_to_end",
  title: "End to end",
  claim: "Llama2-7b runs 1.74x faster than the original.",
  needsGpu: true,
  needsModel: false,
  async run(context) {
    const { quick, progress } = context;
    using gpu = await openGpu();
    const plan = choosePlan(gpu, quick);
    const { tickNs } = await measureCeiling(gpu);
    const rows: Row[] = [];
    const samples: Record<string, readonly number[]> = {};
    for (const [i, shape] of plan.shapes.entries()) {
      for (const format of FORMATS) {
        progress(i / plan.shapes.length, `${shape.name} ${format}`);
        rows.push(...await measureModel(gpu, shape, format, plan, tickNs, context, samples));
      }
    }
    return {
      settings: {
        "weights": "random, in the model's shape; all layers alike; embedding and head in f16",
        "twobit": "packed, one refined group in 8, no outliers",
        "speed":
          `median of ${REPETITIONS} samples of ${plan.generateTokens} tokens by the host's clock, after warming up`,
        "operations":
          "device time of a decode step, all layers, each operation by itself, at the given context; pick without moving on",
        "whole layers":
          "device time of all layers, where a dispatch takes several whole; the operations are then not run",
        "other": "time of a token by the host's clock beyond its whole layers, head and pick, or its operations",
        "in linear layers": "share of the sum of all operations",
      },
      columns: COLUMNS,
      rows,
      samples,
      verdict: judgeEndToEnd(rows, gpu.isSoftware),
    };
  },
};

const REPETITIONS = 5;

/** Longest context of models of 30 B parameters and more: taking it in would take as long as all the rest. */
const LARGE_CONTEXT = 1024;

function isLarge({ hidden, layers }: ModelShape): boolean {
  return hidden * layers > 300_000;
}

/** A model small enough for a software adapter. */
const SOFTWARE_SHAPE: ModelShape = {
  name: "a small Llama",
  source: "made up",
  hidden: 512,
  intermediate: 1024,
  layers: 2,
  heads: 8,
  keyValueHeads: 8,
  headSize: 64,
  vocabulary: 2048,
  tiedHead: false,
};

function choosePlan(gpu: Gpu, quick: boolean): Plan {
  if (gpu.isSoftware) return { shapes: [SOFTWARE_SHAPE], contexts: [32], generateTokens: 4, promptTokens: 16 };
  const names = quick ? [CLAIMED_MODEL] : ["llama-2-7b", "llama-2-13b", "llama-3-8b", "llama-2-70b"];
  return {
    shapes: names.map((name) => MODEL_SHAPES.find((shape) => shape.name === name)!),
    contexts: quick ? [128] : [128, 1024, 4096],
    generateTokens: 64,
    promptTokens: 512,
  };
}

async function measureModel(
  gpu: Gpu,
  shape: ModelShape,
  format: Format,
  plan: Plan,
  tickNs: number,
  context: ExperimentContext,
  samples: Record<string, readonly number[]>,
): Promise<Row[]> {
  const contexts = plan.contexts.filter((context) => !isLarge(shape) || context <= LARGE_CONTEXT);
  const longest = Math.max(...contexts) + Math.max(plan.generateTokens, plan.promptTokens);
  const source = randomSource(configOfShape(shape, longest), format, context.seed);
  using weights = await unlessOutOfMemory(() => uploadWeights(gpu, source));
  if (!weights) return [{ ...EMPTY_ROW, model: shape.name, format, note: DOES_NOT_FIT }];
  const name = `${shape.name} ${format}`;
  const rows = await measureWeights(gpu, weights, name, { ...plan, contexts }, tickNs, context, samples);
  return rows.map((row) => ({ ...EMPTY_ROW, model: shape.name, format, ...row }));
}

/** Cells of each context; one that doesn't fit has a note, and the others go on. */
async function measureWeights(
  gpu: Gpu,
  weights: EngineWeights,
  name: string,
  plan: Plan,
  tickNs: number,
  { decodeSpeeds }: ExperimentContext,
  samples: Record<string, readonly number[]>,
): Promise<Row[]> {
  const prompt = await unlessOutOfMemory(() => measureFirstPrompt(gpu, weights, plan));
  if (prompt) samples[`${name}: prompt tokens/s`] = prompt;
  const prefill = { prefill_tokens_per_s: prompt ? median(prompt) : null };
  const rows: Row[] = [];
  for (const context of plan.contexts) {
    const measured = await unlessOutOfMemory(() => measureContext(gpu, weights, context, plan, tickNs));
    rows.push({ context, ...prefill, ...(measured?.cells ?? { note: DOES_NOT_FIT }) });
    if (!measured) continue;
    samples[`${name} ${context}: decoded tokens/s`] = measured.generation;
    decodeSpeeds.set(`${name} ${context}`, measured.generation);
  }
  return rows;
}

/** Speeds of a prompt in an empty cache. */
async function measureFirstPrompt(gpu: Gpu, weights: EngineWeights, { promptTokens }: Plan): Promise<number[]> {
  using session = await createSession(gpu, weights, promptTokens);
  return await measurePrompt(session, weights, promptTokens, REPETITIONS);
}

async function measureContext(gpu: Gpu, weights: EngineWeights, context: number, plan: Plan, tickNs: number) {
  using session = await createSession(gpu, weights, context + plan.generateTokens);
  await session.prefill([sampleText(weights, context)]);
  const generation = await measureGeneration(session, plan.generateTokens, REPETITIONS);
  await session.decode([0], 1);
  const memoryBytes = gpu.heldBytes;
  const encodeUs = await timeEncoding(gpu, session);
  const times = await timeOperations(gpu, session, tickNs);
  return { generation, cells: describe(generation, times, encodeUs, weights.sizeBytes, memoryBytes) };
}

function describe(
  generation: readonly number[],
  times: OperationTimes,
  encodeUs: number,
  weightBytes: number,
  memoryBytes: number,
): Row {
  const speed = median(generation);
  const tokenUs = 1e6 / speed;
  const sum = (kinds: readonly OperationKind[]) => kinds.reduce((total, kind) => total + (times.get(kind) ?? 0), 0);
  const layers = times.get("layers");
  return {
    decode_tokens_per_s: speed,
    decode_min: Math.min(...generation),
    decode_max: Math.max(...generation),
    token_us: tokenUs,
    layers_us: layers ?? null,
    ...Object.fromEntries(OPERATIONS.map((kind) => [`${kind}_us`, times.get(kind) ?? null])),
    other_us: tokenUs - (layers === undefined ? sum(OPERATIONS) : layers + sum(OUTSIDE_LAYERS)),
    linear_share: sum(LINEAR) / sum(OPERATIONS),
    encode_us: encodeUs,
    weight_bytes: weightBytes,
    memory_bytes: memoryBytes,
  };
}

const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "context", label: "context", unit: "tokens" },
  { key: "decode_tokens_per_s", label: "decode, median", unit: "tokens/s", timed: true },
  { key: "decode_min", label: "least", unit: "tokens/s", timed: true },
  { key: "decode_max", label: "most", unit: "tokens/s", timed: true },
  { key: "prefill_tokens_per_s", label: "prefill of 512", unit: "tokens/s", timed: true },
  { key: "token_us", label: "a token", unit: "us", timed: true },
  { key: "layers_us", label: "whole layers", unit: "us", timed: true },
  ...OPERATIONS.map((kind) => ({ key: `${kind}_us`, label: kind, unit: "us", timed: true })),
  { key: "other_us", label: "other", unit: "us", timed: true },
  { key: "linear_share", label: "in linear layers", unit: "share", timed: true },
  { key: "encode_us", label: "encoding on the host", unit: "us", timed: true },
  { key: "weight_bytes", label: "weights", unit: "bytes" },
  { key: "memory_bytes", label: "device memory", unit: "bytes" },
  { key: "note", label: "note", unit: "" },
];

const EMPTY_ROW: Row = Object.fromEntries(COLUMNS.map(({ key }) => [key, null]));

/** Compares the two formats where the claim is made. Where one of them has no speed nothing is judged. */
export function judgeEndToEnd(rows: readonly Row[], isSoftware: boolean): Verdict {
  const verdict = { paper: CLAIMED_SPEEDUP, unit: "x the f16 engine, Llama-2 7B, decode at context 128" };
  if (isSoftware) {
    return { ...verdict, measured: null, status: "not measured", note: "Shows that the engine runs, not how fast." };
  }
  const speedOf = (format: Format) => {
    const row = rows.find((r) => r.model === CLAIMED_MODEL && r.format === format && r.context === CLAIMED_CONTEXT);
    return typeof row?.decode_tokens_per_s === "number" ? row.decode_tokens_per_s : 0;
  };
  const [full, packed] = [speedOf("f16"), speedOf("twobit")];
  if (!(full > 0 && packed > 0)) {
    const missing = FORMATS.filter((format) => !(speedOf(format) > 0)).join(" and ");
    const note = `${CLAIMED_MODEL} at context ${CLAIMED_CONTEXT} has no speed in ${missing}; both are needed.`;
    return { ...verdict, measured: null, status: "not measured", note };
  }
  return {
    ...verdict,
    measured: packed / full,
    status: packed / full >= CLAIMED_SPEEDUP ? "reproduced" : "not reproduced",
    note: `${packed.toFixed(0)} against ${full.toFixed(0)} tokens/s, both by this engine in one run.`,
  };
}
