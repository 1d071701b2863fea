// `deno task bench`: prompt and generation speed, laid out as llama-bench's tables are.
import { REFINE_EVERY } from "../quant/format.ts";
import { SETTINGS } from "../quant/recipe.ts";
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { MAX_SEQUENCES } from "../model/engine/decode_step.ts";
import { uploadWeights } from "../model/engine/engine_weights.ts";
import { openModel } from "../model/load.ts";
import { configOfShape, type DensityPattern, FORMATS, isFormat, randomSource } from "../model/engine/random_source.ts";
import { STAGES } from "../model/llama/layer.ts";
import { MODEL_SHAPES } from "../model/llama/shapes.ts";
import { measureBatchSpeed, measureSpeed, type SpeedPlan } from "../model/engine/speed.ts";
import { mean } from "../model/host/statistics.ts";
import { checkpointSource, type WeightSource } from "../model/engine/weight_source.ts";
import { headingOf, renderTable } from "../experiments/render.ts";
import { benchQuantizing, QUANTIZING_OPTIONS } from "./bench_quantizing.ts";
import {
  type Command,
  integerOption,
  modelOption,
  type OptionValues,
  shapeOption,
  textOption,
  UsageError,
  WEBGPU_OPTION,
} from "./command.ts";
import { PRECISION_OPTIONS, precisionOption } from "./precision_options.ts";
import { createProgressLine } from "./progress.ts";
import { SAMPLING_OPTIONS, samplingOption } from "./sampling_options.ts";

export const bench: Command = {
  name: "bench",
  summary:
    "Measures speed on the GPU, of a model or of random weights in a model's shape: prompts and generation, or quantizing.",
  options: {
    model: modelOption("Model to measure"),
    shape: {
      value: "NAME",
      help: `Measure random weights instead: ${MODEL_SHAPES.map(({ name }) => name).join(", ")}.`,
    },
    format: { value: "NAME", help: `Format of random weights: ${FORMATS.join(", ")} (default twobit).` },
    refine: {
      value: "N|N/N/N/N,...",
      help:
        `Densities of random weights: one refined group in every N, of q, k, v/o/gate, up/down, for layers in turn: ${
          REFINE_EVERY.join(", ")
        } (default ${SETTINGS.refineEvery}).`,
    },
    prompt: { value: "N", help: "Tokens of the prompt; 0 for none (default 512)." },
    generate: { value: "N", help: "Tokens to generate; 0 for none (default 128)." },
    depth: { value: "N,...", help: "Tokens in the cache before (default 0)." },
    batch: { value: "N,...", help: `Also generate N texts together, up to ${MAX_SEQUENCES}; speed is that of all.` },
    repetitions: { value: "N", help: "Samples of each (default 5)." },
    ...SAMPLING_OPTIONS,
    ...PRECISION_OPTIONS,
    ...QUANTIZING_OPTIONS,
    ...WEBGPU_OPTION,
    json: { help: "Print JSON, with every sample." },
  },
  async run(options) {
    if (options.quantize !== undefined) return await benchQuantizing(options);
    const depths = numbersOption(options, "depth", "0", 0);
    const batches = options.batch === undefined ? [] : numbersOption(options, "batch", "", 1, MAX_SEQUENCES);
    const sampling = samplingOption(options);
    const plan = {
      ...(sampling && { sampling }),
      ...precisionOption(options),
      promptTokens: integerOption(options, "prompt", 512, 0, 2 ** 20),
      generateTokens: integerOption(options, "generate", 128, 0, 2 ** 20),
      repetitions: integerOption(options, "repetitions", 5, 1, 1000),
    };
    checkTests(options, plan, batches);
    const context = Math.max(...depths) + Math.max(plan.promptTokens, plan.generateTokens) + 1;
    using opened = await openSource(options, context);
    const { name, source } = opened;
    checkContext(depths, plan, source.config.context);
    using gpu = await openGpu();
    const { rows, whyNotWhole } = await measure(gpu, name, source, depths, batches, plan);
    const reason = whyNotWhole === undefined ? "" : `layers run operation by operation: ${whyNotWhole}\n`;
    if (options.json === true) {
      console.log(JSON.stringify({ device: gpu.adapterName, software: gpu.isSoftware, rows }, null, 1));
    } else {
      const table = renderTable(COLUMNS.map(headingOf), rows.map((row) => COLUMNS.map(({ key }) => row[key])));
      console.log(`${gpu.adapterName}\n${reason}\n${table}`);
    }
    if (gpu.isSoftware) console.error("A software adapter shows that the engine runs, not how fast.");
    return 0;
  },
};

const COLUMNS = [
  { key: "model", label: "model", unit: "" },
  { key: "size_bytes", label: "weights", unit: "bytes" },
  { key: "test", label: "test", unit: "" },
  { key: "tokens_per_s", label: "speed", unit: "tokens/s" },
  { key: "deviation", label: "standard deviation", unit: "tokens/s" },
  { key: "sequence_tokens_per_s", label: "of each sequence", unit: "tokens/s" },
] as const;

async function measure(
  gpu: Gpu,
  name: string,
  source: WeightSource,
  depths: readonly number[],
  batches: readonly number[],
  plan: Omit<SpeedPlan, "depth">,
) {
  using line = createProgressLine("bench");
  using weights = await uploadWeights(gpu, source, (share) => line.update(share / 2, "weights"));
  const rows: ReturnType<typeof speedRow>[] = [];
  let whyNotWhole: string | undefined;
  const add = (test: string, depth: number, samples: readonly number[], sequences = 1) => {
    const at = depth > 0 ? ` @ d${depth}` : "";
    if (samples.length > 0) rows.push(speedRow(name, weights.sizeBytes, test + at, samples, sequences));
  };
  for (const [i, depth] of depths.entries()) {
    line.update(0.5 + i / depths.length / 2, `depth ${depth}`);
    const speed = await measureSpeed(gpu, weights, { ...plan, depth });
    whyNotWhole = speed.whyNotWhole;
    add(`pp${plan.promptTokens}`, depth, speed.prompt);
    add(`tg${plan.generateTokens}`, depth, speed.generation);
    for (const sequences of batches) {
      const samples = await measureBatchSpeed(gpu, weights, sequences, { ...plan, depth });
      add(`tg${plan.generateTokens} b${sequences}`, depth, samples, sequences);
    }
  }
  line.clear();
  return { rows, whyNotWhole };
}

function speedRow(model: string, size_bytes: number, test: string, samples: readonly number[], sequences: number) {
  const speed = mean(samples);
  const squares = samples.reduce((sum, sample) => sum + (sample - speed) ** 2, 0);
  const deviation = Math.sqrt(squares / Math.max(1, samples.length - 1));
  const speeds = { tokens_per_s: speed, sequence_tokens_per_s: speed / sequences };
  return { model, size_bytes, test, sequences, ...speeds, deviation, samples };
}

/** @throws {UsageError} when there is nothing to measure, or two models */
function checkTests(
  options: OptionValues,
  { promptTokens, generateTokens }: Omit<SpeedPlan, "depth">,
  batches: readonly number[],
): void {
  if (promptTokens === 0 && generateTokens === 0) {
    throw new UsageError("--prompt and --generate are 0, one of them must be 1 or more");
  }
  if (batches.length > 0 && generateTokens === 0) {
    throw new UsageError("--batch is given and --generate is 0, must be 1 or more");
  }
  if (options.shape !== undefined && options.model !== undefined) {
    throw new UsageError("--model and --shape are given, must be one of them");
  }
}

/** @throws {UsageError} when a sequence would be longer than the model's context */
function checkContext(depths: readonly number[], plan: Omit<SpeedPlan, "depth">, context: number): void {
  const depth = Math.max(...depths);
  const tokens = Math.max(1, depth) + Math.max(plan.promptTokens, plan.generateTokens);
  if (tokens <= context) return;
  throw new UsageError(
    `--depth ${depth} with --prompt ${plan.promptTokens} and --generate ${plan.generateTokens} takes ${tokens} tokens, ` +
      `must be at most the model's context of ${context}`,
  );
}

async function openSource(options: OptionValues, context: number) {
  const name = textOption(options, "shape", "");
  const format = textOption(options, "format", "twobit");
  if (!isFormat(format)) throw new UsageError(`--format is ${format}, must be one of ${FORMATS.join(", ")}`);
  if (name === "") {
    const given = ["format", "refine"].find((option) => options[option] !== undefined);
    if (given) {
      throw new UsageError(
        `--${given} needs --shape, a model has a ${given === "format" ? given : "density"} of its own`,
      );
    }
    const model = textOption(options, "model", "tiny");
    using line = createProgressLine("loading");
    const checkpoint = await openModel(model, (share, file) => line.update(share, file));
    line.clear();
    return { name: model, source: checkpointSource(checkpoint), [Symbol.dispose]: () => checkpoint[Symbol.dispose]() };
  }
  const shape = shapeOption(options, "shape", "");
  if (options.refine !== undefined && format !== "twobit") {
    throw new UsageError(`--refine is given and --format is ${format}, must be twobit`);
  }
  const source = randomSource(configOfShape(shape, context), format, 1, densitiesOption(options));
  return { name: `${name} ${format}`, source, [Symbol.dispose]() {} };
}

/** Reads --refine: layers with commas between, each one density or one for each stage with slashes between. */
function densitiesOption(options: OptionValues): DensityPattern {
  const text = textOption(options, "refine", String(SETTINGS.refineEvery));
  return text.split(",").map((layer) => {
    const stages = layer.split("/").map((name) => REFINE_EVERY.find((every) => String(every) === name));
    const found = stages.filter((every) => every !== undefined);
    if (found.length < stages.length || (stages.length !== 1 && stages.length !== STAGES.length)) {
      const wanted = `${REFINE_EVERY.join(", ")}, or ${STAGES.length} of them with slashes between`;
      throw new UsageError(`--refine has ${layer}, must be one of ${wanted}, for each layer`);
    }
    return found.length === 1 ? STAGES.map(() => found[0]) : found;
  });
}

/** Reads an option as whole numbers with commas between. @throws {UsageError} */
function numbersOption(
  options: OptionValues,
  name: string,
  fallback: string,
  least: number,
  most = Infinity,
): number[] {
  return textOption(options, name, fallback).split(",").map((text) => {
    const number = Number(text);
    if (text !== "" && Number.isInteger(number) && number >= least && number <= most) return number;
    const range = most === Infinity ? `from ${least} on` : `from ${least} to ${most}`;
    throw new UsageError(`--${name} is ${text}, must be whole numbers ${range} with commas between`);
  });
}
