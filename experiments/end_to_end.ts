// Claim `end_to_end`: Llama2-7b runs 1.74 times faster than the original.
import { unlessOutOfMemory } from "../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../model/engine/engine_weights.ts";
import { configOfShape, type Format, FORMATS, randomSource } from "../model/engine/random_source.ts";
import { createSession } from "../model/engine/session.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import {
  measureGeneration,
  measurePrompt,
  measureSpeed,
  REPETITIONS,
  sampleText,
  timeEncoding,
  timeOperations,
} from "../model/engine/speed.ts";
import { medianEstimate } from "../model/host/statistics.ts";
import type { WeightSource } from "../model/engine/weight_source.ts";
import {
  CLAIMED_MODEL,
  COLUMNS,
  describe,
  DOES_NOT_FIT,
  EMPTY_ROW,
  joinNotes,
  judgeEndToEnd,
  speedCells,
} from "./end_to_end_table.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import { type Ceiling, fractionOfRead, measureCeiling } from "./kernel_bench.ts";
import { DEFAULT_PACKING, hasRealModel, type RealWeights, withRealWeights } from "./packed/real_weights.ts";
import { OPTION_SETTINGS, optionFormats } from "./packed/precisions.ts";
import { estimateCells, type Findings, type Row } from "./results/result.ts";

interface Plan {
  readonly shapes: readonly ModelShape[];
  /** Tokens in the cache before the measured ones. */
  readonly contexts: readonly number[];
  /** Tokens generated in a sample. */
  readonly generateTokens: number;
  readonly promptTokens: number;
  /** Those at which packed weights are also decoded with each option of {@linkcode optionFormats}. Default: all. */
  readonly optionContexts?: readonly number[];
}

export const endToEnd: Experiment = {
  id: "end_to_end",
  title: "End to end",
  claim: "Llama2-7b runs 1.74x faster than the original.",
  differs: "The original is this engine's own f16; other programs stand below the table.",
  needsGpu: true,
  needsModel: true,
  async run(context) {
    using gpu = await openGpu();
    const plan = choosePlan(gpu, context.quick);
    const run: Run = { gpu, ceiling: await measureCeiling(gpu), context, samples: {} };
    if (!await hasRealModel(context)) {
      const settings = {
        "weights": "random, in the model's shape, all layers alike; embedding and head in f16",
        "twobit": DEFAULT_PACKING,
      };
      return findings(run, plan, settings, await measureShapes(run, plan), CLAIMED_MODEL);
    }
    return await withRealWeights(context, !gpu.isSoftware, async (weights) => {
      const settings = { "weights": "the model's own, embedding and head in f16", "twobit": weights.packed };
      return findings(run, plan, settings, await measureReal(run, weights, plan), weights.name);
    });
  },
};

function findings(
  { samples }: Run,
  { generateTokens, promptTokens }: Plan,
  settings: Readonly<Record<string, string>>,
  rows: readonly Row[],
  model: string,
): Findings {
  return {
    settings: {
      ...settings,
      "prompt": `${promptTokens} tokens in an empty cache`,
      "of read bandwidth":
        "bytes that a token has to read (packed or f16 layers, head, keys and values) over its time, against one long " +
        "read in the same run",
      "speed":
        `median of ${REPETITIONS.short} samples of ${generateTokens} tokens by the host's clock (${REPETITIONS.long} where ` +
        "one takes a second), after warming up; errors are those of the medians",
      ...OPTION_SETTINGS,
      "operations":
        "device time of a decode step, all layers, each operation by itself, at the given context; pick without moving on",
      "whole layers":
        "device time of all layers, where a dispatch takes several whole; such a token doesn't run the operations beside it",
      "other": "time of a token by the host's clock beyond its whole layers, head and pick, or its operations",
      "in linear layers": "share of the sum of all operations, each by itself",
    },
    columns: COLUMNS,
    rows,
    samples,
    verdict: judgeEndToEnd(rows, model),
  };
}

/** Longest context of models other than the claim's: taking it in takes as long as all the rest. */
const SHORT_CONTEXT = 1024;

/** A model small enough for a software adapter. */
export const SOFTWARE_SHAPE: ModelShape = {
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

interface Run {
  readonly gpu: Gpu;
  readonly ceiling: Ceiling;
  readonly context: ExperimentContext;
  readonly samples: Record<string, readonly number[]>;
}

async function measureShapes(run: Run, plan: Plan): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [i, shape] of plan.shapes.entries()) {
    const contexts = plan.contexts.filter((context) => shape.name === CLAIMED_MODEL || context <= SHORT_CONTEXT);
    const longest = Math.max(...contexts) + Math.max(plan.generateTokens, plan.promptTokens);
    for (const format of FORMATS) {
      run.context.progress(i / plan.shapes.length, `${shape.name} ${format}`);
      const source = randomSource(configOfShape(shape, longest), format, run.context.seed);
      const optionContexts = shape.name === CLAIMED_MODEL ? contexts : contexts.slice(0, 1);
      rows.push(...await measureSource(run, source, shape.name, format, { ...plan, contexts, optionContexts }));
    }
  }
  return rows;
}

/** The contexts that the run's model is measured at. */
const REAL_CONTEXTS = [128, 1024];

async function measureReal(run: Run, { name, sources }: RealWeights, plan: Plan): Promise<Row[]> {
  const contexts = (run.gpu.isSoftware ? plan.contexts : REAL_CONTEXTS)
    .filter((context) => context + plan.generateTokens <= sources.f16.config.context);
  const rows: Row[] = [];
  for (const [i, format] of FORMATS.entries()) {
    run.context.progress(i / FORMATS.length, `${name} ${format}`);
    rows.push(...await measureSource(run, sources[format], name, format, { ...plan, contexts }));
  }
  return rows;
}

async function measureSource(
  run: Run,
  source: WeightSource,
  model: string,
  format: Format,
  plan: Plan,
): Promise<Row[]> {
  using weights = await unlessOutOfMemory(() => uploadWeights(run.gpu, source));
  if (!weights) {
    for (const context of plan.contexts) run.context.decodeSpeeds.set(`${model} ${format} ${context}`, []);
    return [{ ...EMPTY_ROW, model, format, note: DOES_NOT_FIT }];
  }
  const rows = await measureWeights(run, weights, `${model} ${format}`, plan);
  const options = format === "twobit" ? await measureOptions(run, weights, model, plan) : [];
  return [...rows, ...options].map((row) => ({ ...EMPTY_ROW, model, format, ...row }));
}

/** Speeds of packed weights that are decoded less exactly. */
async function measureOptions(
  { gpu, samples }: Run,
  weights: EngineWeights,
  model: string,
  plan: Plan,
): Promise<Row[]> {
  const { contexts, optionContexts = contexts, generateTokens } = plan;
  const rows: Row[] = [];
  for (const depth of optionContexts) {
    for (const { format, precision } of optionFormats(depth)) {
      const asked = { ...precision, depth, generateTokens, promptTokens: 0, repetitions: REPETITIONS.short };
      const speed = await unlessOutOfMemory(() => measureSpeed(gpu, weights, asked));
      rows.push({ format, context: depth, ...(speed ? speedCells(speed.generation) : { note: DOES_NOT_FIT }) });
      if (speed) samples[`${model} ${format} ${depth}: decoded tokens/s`] = speed.generation;
    }
  }
  return rows;
}

/** Why a row has no speed of a prompt. */
const NO_PROMPT = `a prompt ${DOES_NOT_FIT}`;

/** Cells of each context; one that doesn't fit has a note, and the others go on. */
async function measureWeights(run: Run, weights: EngineWeights, name: string, plan: Plan): Promise<Row[]> {
  const { gpu, ceiling, samples, context: { decodeSpeeds } } = run;
  const prompt = await unlessOutOfMemory(() => measureFirstPrompt(gpu, weights, plan));
  if (prompt) samples[`${name}: prompt tokens/s`] = prompt;
  const prefill = prompt ? estimateCells("prefill_tokens_per_s", medianEstimate(prompt)) : {};
  const rows: Row[] = [];
  for (const context of plan.contexts) {
    const measured = await unlessOutOfMemory(() => measureContext(gpu, weights, context, plan, ceiling));
    const cells = measured?.cells ?? { note: DOES_NOT_FIT };
    rows.push({ context, ...prefill, ...cells, ...(!prompt && { note: joinNotes(NO_PROMPT, cells.note) }) });
    if (!measured) continue;
    samples[`${name} ${context}: decoded tokens/s`] = measured.generation;
    decodeSpeeds.set(`${name} ${context}`, measured.generation);
  }
  return rows;
}

async function measureFirstPrompt(gpu: Gpu, weights: EngineWeights, { promptTokens }: Plan): Promise<number[]> {
  using session = await createSession(gpu, weights, promptTokens);
  return await measurePrompt(session, weights, promptTokens);
}

async function measureContext(gpu: Gpu, weights: EngineWeights, context: number, plan: Plan, ceiling: Ceiling) {
  using session = await createSession(gpu, weights, context + plan.generateTokens);
  await session.prefill([sampleText(weights, context)]);
  const generation = await measureGeneration(session, plan.generateTokens);
  await session.decode([0], 1);
  const memoryBytes = gpu.heldBytes;
  const encodeUs = await timeEncoding(gpu, session);
  const times = await timeOperations(gpu, session, ceiling.tickNs);
  const cells = describe(generation, times, encodeUs, weights.sizeBytes, memoryBytes, session.step.whyNotWhole);
  if (gpu.isSoftware) return { generation, cells };
  const readBytes = bytesOfToken(weights, context + plan.generateTokens / 2);
  const fraction = fractionOfRead(readBytes, generation.map((speed) => 1e6 / speed), ceiling);
  return { generation, cells: { ...cells, ...estimateCells("bandwidth_fraction", fraction) } };
}

/** Bytes that decoding a token has to read: all weights but the embedding's other rows, and so many keys and values. */
function bytesOfToken({ config, embedding, head, sizeBytes }: EngineWeights, tokens: number): number {
  const { layers, keyValueHeads, headSize } = config;
  const unread = head === embedding ? 0 : 16 * embedding.rows * embedding.chunks;
  return sizeBytes - unread + 4 * layers * keyValueHeads * headSize * tokens;
}
