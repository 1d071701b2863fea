/**
 * Claim `end_to_end`: Llama2-7b runs 1.74 times faster than the original.
 *
 * @module
 */
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../model/engine/engine_weights.ts";
import { configOfShape, type Format, FORMATS, randomSource } from "../model/engine/random_source.ts";
import { createSession } from "../model/engine/session.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import { measureGeneration, measurePrompt, sampleText, timeEncoding, timeOperations } from "../model/engine/speed.ts";
import type { WeightSource } from "../model/engine/weight_source.ts";
import { SETTINGS } from "../quant/recipe.ts";
import { CLAIMED_MODEL, COLUMNS, describe, EMPTY_ROW, judgeEndToEnd, speedCells } from "./end_to_end_table.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import { type Ceiling, measureCeiling } from "./kernel_bench.ts";
import { describeSettings, hasRealModel, withRealWeights } from "./real_weights.ts";
import type { Row } from "./results/result.ts";
import { DOES_NOT_FIT, unlessOutOfMemory } from "./unless_out_of_memory.ts";

/** What is measured. */
interface Plan {
  readonly shapes: readonly ModelShape[];
  /** Tokens in the cache before the measured ones. */
  readonly contexts: readonly number[];
  /** Tokens generated in a sample. */
  readonly generateTokens: number;
  readonly promptTokens: number;
}

export const endToEnd: Experiment = {
  id: "end_to_end",
  title: "End to end",
  claim: "Llama2-7b runs 1.74x faster than the original.",
  differs: "The original is this engine's own f16; other programs stand below the table.",
  needsGpu: true,
  needsModel: false,
  async run(context) {
    const { quick, progress } = context;
    using gpu = await openGpu();
    const plan = choosePlan(gpu, quick);
    const ceiling = await measureCeiling(gpu);
    const rows: Row[] = [];
    const samples: Record<string, readonly number[]> = {};
    const run = { gpu, ceiling, context, samples };
    for (const [i, shape] of plan.shapes.entries()) {
      for (const format of FORMATS) {
        progress(i / plan.shapes.length, `${shape.name} ${format}`);
        rows.push(...await measureShape(run, shape, format, plan));
      }
    }
    const isReal = await hasRealModel(context);
    for (const format of isReal ? FORMATS : []) {
      progress(1, `the run's model, ${format}`);
      rows.push(...await measureReal(run, format, plan));
    }
    return {
      settings: {
        "weights": "random, in the model's shape, all layers alike; embedding and head in f16" +
          (isReal ? `; ${await nameOfReal(context)}: its own` : ""),
        "twobit": `packed as quantize does by default: ${describeSettings(SETTINGS)}`,
        "of read bandwidth":
          "bytes that a token has to read (packed or f16 layers, head, keys and values) over its time, against one long " +
          "read in the same run",
        "speed":
          `median of ${REPETITIONS} samples of ${plan.generateTokens} tokens by the host's clock, after warming up; errors ` +
          "are those of the medians",
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

const REPETITIONS = 9;

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

/** What all measurements of a run share. */
interface Run {
  readonly gpu: Gpu;
  readonly ceiling: Ceiling;
  readonly context: ExperimentContext;
  readonly samples: Record<string, readonly number[]>;
}

async function measureShape(run: Run, shape: ModelShape, format: Format, plan: Plan): Promise<Row[]> {
  const contexts = plan.contexts.filter((context) => !isLarge(shape) || context <= LARGE_CONTEXT);
  const longest = Math.max(...contexts) + Math.max(plan.generateTokens, plan.promptTokens);
  const source = randomSource(configOfShape(shape, longest), format, run.context.seed);
  return await measureSource(run, source, shape.name, format, { ...plan, contexts });
}

/** The contexts that the run's model is measured at. */
const REAL_CONTEXTS = [128, 1024];

/** Rows of the run's model with its own weights. */
async function measureReal(run: Run, format: Format, plan: Plan): Promise<Row[]> {
  const name = await nameOfReal(run.context);
  const contexts = run.gpu.isSoftware ? plan.contexts : REAL_CONTEXTS;
  return await withRealWeights(
    run.context,
    format,
    (source) => measureSource(run, source, name, format, { ...plan, contexts }),
  );
}

/** The last part of the model's name. */
async function nameOfReal(context: ExperimentContext): Promise<string> {
  return (await context.model()).name.replace(/[/\\]+$/, "").split(/[/\\]/).at(-1)!;
}

async function measureSource(
  run: Run,
  source: WeightSource,
  model: string,
  format: Format,
  plan: Plan,
): Promise<Row[]> {
  using weights = await unlessOutOfMemory(() => uploadWeights(run.gpu, source));
  if (!weights) return [{ ...EMPTY_ROW, model, format, note: DOES_NOT_FIT }];
  const rows = await measureWeights(run, weights, `${model} ${format}`, plan);
  return rows.map((row) => ({ ...EMPTY_ROW, model, format, ...row }));
}

/** Cells of each context; one that doesn't fit has a note, and the others go on. */
async function measureWeights(run: Run, weights: EngineWeights, name: string, plan: Plan): Promise<Row[]> {
  const { gpu, ceiling, samples, context: { decodeSpeeds } } = run;
  const prompt = await unlessOutOfMemory(() => measureFirstPrompt(gpu, weights, plan));
  if (prompt) samples[`${name}: prompt tokens/s`] = prompt;
  const prefill = prompt ? speedCells("prefill_tokens_per_s", prompt) : {};
  const rows: Row[] = [];
  for (const context of plan.contexts) {
    const measured = await unlessOutOfMemory(() => measureContext(gpu, weights, context, plan, ceiling));
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

async function measureContext(gpu: Gpu, weights: EngineWeights, context: number, plan: Plan, ceiling: Ceiling) {
  using session = await createSession(gpu, weights, context + plan.generateTokens);
  await session.prefill([sampleText(weights, context)]);
  const generation = await measureGeneration(session, plan.generateTokens, REPETITIONS);
  await session.decode([0], 1);
  const memoryBytes = gpu.heldBytes;
  const encodeUs = await timeEncoding(gpu, session);
  const times = await timeOperations(gpu, session, ceiling.tickNs);
  const cells = describe(generation, times, encodeUs, weights.sizeBytes, memoryBytes);
  const readBytes = bytesOfToken(weights, context + plan.generateTokens / 2);
  const fraction = readBytes / Number(cells.token_us) / ceiling.bytesPerUs;
  return { generation, cells: { ...cells, bandwidth_fraction: fraction } };
}

/** Bytes that decoding a token has to read: all weights but the embedding's other rows, and so many keys and values. */
function bytesOfToken({ config, embedding, head, sizeBytes }: EngineWeights, tokens: number): number {
  const { layers, keyValueHeads, headSize } = config;
  const unread = head === embedding ? 0 : 16 * embedding.rows * embedding.chunks;
  return sizeBytes - unread + 4 * layers * keyValueHeads * headSize * tokens;
}
