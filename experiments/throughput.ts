// A question of this suite, no claim of the paper: what a GPU's matrix units are worth wherever many tokens go through
// the layers at once. Dawn's WebGPU reaches them, Deno's own doesn't.
import { describeAdapter } from "../kernels/gpu/adapter.ts";
import { unlessOutOfMemory } from "../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../model/engine/engine_weights.ts";
import { configOfShape, type Format, FORMATS, randomSource } from "../model/engine/random_source.ts";
import type { DecodePrecision } from "../model/engine/precision.ts";
import {
  measureBatchSpeed,
  measureRates,
  measureSpeed,
  REPETITIONS,
  sampleText,
  type SpeedPlan,
} from "../model/engine/speed.ts";
import { createSequenceScorer } from "../model/evaluate/sequence_scorer.ts";
import { dawnVersion, openDawn } from "../model/host/dawn.ts";
import { medianEstimate, ratioOf } from "../model/host/statistics.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import { measureQuantizing } from "../model/quantize/quantize_speed.ts";
import { twobitQuantizer } from "../quant/recipe.ts";
import { SOFTWARE_SHAPE } from "./end_to_end.ts";
import { CLAIMED_MODEL, DOES_NOT_FIT } from "./end_to_end_table.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import { OPTION_SETTINGS, optionFormats } from "./packed/precisions.ts";
import { DEFAULT_PACKING } from "./packed/real_weights.ts";
import { formatEstimate, STATUS_RULE, statusOfAtLeast } from "./results/judge.ts";
import { type Column, estimateCells, estimateColumns, estimateOf, type Row, type Verdict } from "./results/result.ts";

/** Text cut into windows. */
interface Windows {
  readonly windows: number;
  readonly windowTokens: number;
}

interface Plan {
  readonly shape: ModelShape;
  readonly promptTokens: number;
  /** Numbers of texts that go on together. */
  readonly texts: readonly number[];
  /** Tokens generated for each of them. */
  readonly generateTokens: number;
  /** What is scored for a sample. */
  readonly scored: Windows;
  /** Tokens of the text whose scoring is stated: WikiText-2's test part has about as many. */
  readonly textTokens: number;
  readonly calibrating: Windows;
}

const GPU_PLAN: Plan = {
  shape: MODEL_SHAPES.find(({ name }) => name === CLAIMED_MODEL)!,
  promptTokens: 512,
  texts: [2, 4, 8, 16],
  generateTokens: 64,
  scored: { windows: 4, windowTokens: 2048 },
  textTokens: 340_000,
  calibrating: { windows: 128, windowTokens: 2048 },
};

const SOFTWARE_PLAN: Plan = {
  shape: SOFTWARE_SHAPE,
  promptTokens: 16,
  texts: [2, 4],
  generateTokens: 4,
  scored: { windows: 2, windowTokens: 16 },
  textTokens: 32,
  calibrating: { windows: 2, windowTokens: 16 },
};

/** Texts together up to which the options of {@linkcode optionFormats} change anything. */
const OPTION_TEXTS = 4;

/** The implementations of WebGPU, by their names in the table. */
const OWN = "Deno";
const OTHER = "Dawn";

export const throughput: Experiment = {
  id: "throughput",
  title: "Many tokens at once",
  claim: "Ours, no claim of the paper: on matrix units, which Dawn's WebGPU reaches and Deno's own doesn't, a packed " +
    "Llama-2 7B takes in prompts, generates texts together, is scored and is calibrated faster.",
  differs: "The paper generates one text.",
  needsGpu: true,
  needsModel: false,
  isOurs: true,
  takesWholeRun: true,
  async run(context) {
    const rows: Row[] = [];
    const samples: Record<string, readonly number[]> = {};
    let plan = SOFTWARE_PLAN;
    {
      using gpu = await openGpu();
      if (!gpu.isSoftware) plan = GPU_PLAN;
      rows.push(...await measureAll({ gpu, webgpu: OWN, plan, context, samples }));
    }
    const dawn = plan === SOFTWARE_PLAN ? "not measured on a software adapter" : await findDawn();
    if (typeof dawn !== "string") {
      using gpu = await openGpu({ webgpu: dawn });
      rows.push(...await measureAll({ gpu, webgpu: OTHER, plan, context, samples }));
    }
    return {
      settings: {
        "weights": `random, in ${plan.shape.name}'s shape; embedding and head in f16`,
        "twobit": DEFAULT_PACKING,
        "Deno": "its own WebGPU",
        "Dawn": typeof dawn === "string" ? dawn : `that of npm:webgpu@${dawnVersion()}`,
        "texts together": `${plan.generateTokens} tokens of each; speed is that of all`,
        ...OPTION_SETTINGS,
        "scoring": `by ${describeWindows(plan.scored)}; a job is a text of ${plan.textTokens} tokens`,
        "calibration":
          `${
            describeWindows(plan.calibrating)
          }, targets corrected: quantizing all layers, by the first layer's time and ` +
          "the second's, without reading a file and writing one; once",
        "speed": `median of ${REPETITIONS.long} samples by the host's clock, after warming up`,
      },
      columns: COLUMNS,
      rows,
      samples,
      verdict: judgeThroughput(rows),
    };
  },
};

function describeWindows({ windows, windowTokens }: Windows): string {
  return `${windows} windows of ${windowTokens} tokens`;
}

/** Dawn, or why there is none. */
async function findDawn(): Promise<GPU | string> {
  try {
    const dawn = await openDawn();
    return await describeAdapter(dawn) ? dawn : "finds no adapter";
  } catch (error) {
    return (error as Error).message;
  }
}

interface Run {
  readonly gpu: Gpu;
  readonly webgpu: typeof OWN | typeof OTHER;
  readonly plan: Plan;
  readonly context: ExperimentContext;
  readonly samples: Record<string, readonly number[]>;
}

async function measureAll(run: Run): Promise<Row[]> {
  const { webgpu, context } = run;
  const done = webgpu === OWN ? 0 : 0.5;
  const rows: Row[] = [];
  for (const [i, format] of FORMATS.entries()) {
    context.progress(done + i / 6, `${webgpu}, ${format}`);
    rows.push(...await measureFormat(run, format));
  }
  context.progress(done + 1 / 3, `${webgpu}, calibration`);
  return [...rows, await measureCalibration(run)];
}

/** Quantizing all layers, by the times of the first two. */
async function measureCalibration({ gpu, webgpu, plan: { shape, calibrating } }: Run): Promise<Row> {
  const tokens = calibrating.windows * calibrating.windowTokens;
  const row = { ...EMPTY_ROW, webgpu, format: "twobit", job: "calibration", tokens };
  const quantizer = twobitQuantizer({}, "corrected");
  const measured = await unlessOutOfMemory(() =>
    measureQuantizing(gpu, configOfShape(shape, calibrating.windowTokens), quantizer, calibrating)
  );
  if (!measured) return { ...row, note: DOES_NOT_FIT };
  const seconds = (measured.firstLayerMs + (shape.layers - 1) * measured.layerMs) / 1000;
  return { ...row, tokens_per_s: tokens / seconds, job_s: seconds };
}

/** Samples of a job's speed, in tokens a second. */
type Measure = (weights: EngineWeights) => Promise<readonly number[]>;

type Job = readonly [format: string, name: string, tokens: number, measure: Measure];

/** Whatever takes a model's weights in one format: prompts and texts together, and scoring where they are packed. */
async function measureFormat({ gpu, webgpu, plan, context, samples }: Run, format: Format): Promise<Row[]> {
  const { promptTokens, generateTokens, texts, scored, textTokens } = plan;
  const longest = Math.max(scored.windowTokens, 1 + promptTokens, 1 + generateTokens);
  const source = randomSource(configOfShape(plan.shape, longest), format, context.seed);
  using weights = await unlessOutOfMemory(() => uploadWeights(gpu, source));
  const rates: SpeedPlan = { promptTokens: 0, generateTokens, depth: 0, repetitions: REPETITIONS.long };
  const prompt: Measure = async (weights) => {
    return (await measureSpeed(gpu, weights, { ...rates, promptTokens, generateTokens: 0 })).prompt;
  };
  const together = (own: string, count: number, precision: DecodePrecision = {}): Job => {
    const measure: Measure = (weights) => measureBatchSpeed(gpu, weights, count, { ...rates, ...precision });
    return [own, `${count} texts`, count * generateTokens, measure];
  };
  const jobs: Job[] = [[format, "prompt", promptTokens, prompt], ...texts.map((count) => together(format, count))];
  if (format === "twobit") {
    jobs.push([format, "scoring", textTokens, (weights) => measureScoring(gpu, weights, scored)]);
    const few = texts.filter((count) => count <= OPTION_TEXTS);
    const options = optionFormats(generateTokens);
    jobs.push(...options.flatMap(({ format, precision }) => few.map((count) => together(format, count, precision))));
  }
  const rows: Row[] = [];
  for (const [format, job, tokens, measure] of jobs) {
    const row = { ...EMPTY_ROW, webgpu, format, job, tokens };
    const speeds = weights && await unlessOutOfMemory(() => measure(weights));
    if (!speeds) {
      rows.push({ ...row, note: DOES_NOT_FIT });
      continue;
    }
    samples[`${webgpu} ${format} ${job}: tokens/s`] = speeds;
    const speed = medianEstimate(speeds);
    rows.push({ ...row, ...estimateCells("tokens_per_s", speed), job_s: tokens / speed.value });
  }
  return rows;
}

async function measureScoring(gpu: Gpu, weights: EngineWeights, { windows, windowTokens }: Windows): Promise<number[]> {
  using scorer = createSequenceScorer(gpu, weights, new Map());
  const tokens = sampleText(weights, windowTokens);
  const sequences = Array.from({ length: windows }, () => ({ tokens, targets: tokens.slice(1) }));
  return await measureRates(windows * windowTokens, async () => void await scorer.score(sequences), REPETITIONS.long);
}

const COLUMNS: readonly Column[] = [
  { key: "webgpu", label: "WebGPU", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "job", label: "job", unit: "" },
  { key: "tokens", label: "tokens of the job", unit: "" },
  ...estimateColumns({ key: "tokens_per_s", label: "speed", unit: "tokens/s", timed: true }),
  { key: "job_s", label: "the job", unit: "s", timed: true },
  { key: "note", label: "note", unit: "", timed: true },
];

const EMPTY_ROW: Row = Object.fromEntries(COLUMNS.map(({ key }) => [key, null]));

/** Shows by how much matrix units are faster on the packed model, at least and at most; the least decides. */
export function judgeThroughput(rows: readonly Row[]): Verdict {
  const verdict = { paper: "nothing", unit: "x the speed on Deno's own WebGPU, packed, by job" };
  const measured = rows.filter((row) => row.format === "twobit" && typeof row.tokens_per_s === "number");
  const speedOf = (row: Row) => estimateOf(row, "tokens_per_s");
  const ratios = measured.filter(({ webgpu }) => webgpu === OTHER).flatMap((row) => {
    const own = measured.find(({ webgpu, job }) => webgpu === OWN && job === row.job);
    return own ? [{ job: row.job, ratio: ratioOf(speedOf(row), speedOf(own)) }] : [];
  }).toSorted((a, b) => a.ratio.value - b.ratio.value);
  const [least] = ratios;
  if (!least) return { ...verdict, measured: null, status: "not measured", note: "No job ran on both." };
  return {
    ...verdict,
    measured: [least, ratios.at(-1)!].map(({ job, ratio }) => `${formatEstimate(ratio)} (${job})`).join(" to "),
    status: statusOfAtLeast(least.ratio, 1),
    note: `No claim of the paper. Reproduced means: every job is faster. ${STATUS_RULE}`,
  };
}
