// `deno task quantize`: a checkpoint to a packed file.
import { OutOfMemoryError } from "../kernels/gpu/device_errors.ts";
import { refuseReplacing } from "../model/host/atomic_file.ts";
import { pathExists } from "../model/host/path_exists.ts";
import { STAGES } from "../model/llama/layer.ts";
import type { StageDensities } from "../model/quantize/choose_densities.ts";
import { layersDirectory } from "../model/quantize/finished_layers.ts";
import { QUANTIZING_SHARE } from "../model/quantize/packed_writer.ts";
import { quantizeModel } from "../model/quantize_file.ts";
import { type MatrixReport, NothingToQuantizeError, type QuantizeOptions } from "../model/quantize_options.ts";
import { QUANTIZING_PLACES } from "../model/workers/quantizing_place.ts";
import type { TuningReport } from "../model/tune/tune_model.ts";
import { totalBits } from "../quant/bits.ts";
import { REFINE_EVERY } from "../quant/format.ts";
import { BUDGET_BITS, CALIBRATION_SIZES, DENSITY_RULES, QUANTIZE_METHODS, SETTINGS } from "../quant/recipe.ts";
import {
  calibrationTextOption,
  type Command,
  integerOption,
  MODEL_HELP,
  numberOption,
  oneOfOption,
  type OptionValues,
  textOption,
  UsageError,
  WEBGPU_OPTION,
} from "./command.ts";
import { hostPeakBytes } from "./host_peak.ts";
import { createProgressLine, formatPercent, formatSeconds } from "./progress.ts";
import { noteCalibration, noteOutOfLine } from "./quantize_notes.ts";

export const quantize: Command = {
  name: "quantize",
  summary: "Quantizes the linear layers of a checkpoint to 2 and 4 bits, and with --outliers 16, into one packed file.",
  options: {
    model: { value: "tiny|DIR|F.gguf|hf:ORG/NAME[@REVISION]", help: `Checkpoint to quantize: ${MODEL_HELP}.` },
    out: { value: "F.safetensors", help: "Packed file to write; required." },
    method: {
      value: "NAME",
      help: "corrected (default): error feedback towards corrected targets; feedback: error feedback alone; " +
        "search: scales only, channels weighed by random tokens, without a text.",
    },
    refine: {
      value: "N",
      help: `One refined group in every N of all matrices: ${
        REFINE_EVERY.join(", ")
      } (default ${SETTINGS.refineEvery}).`,
    },
    densities: {
      value: "NAME",
      help: "uniform: one density for all, --refine; kl (default on a GPU below a billion weights): as many refined " +
        `groups in each stage of each layer as make the model lose least within ${BUDGET_BITS} bits a weight, ` +
        "measured on a GPU with room for the whole model in 16 bits, with a calibration text.",
    },
    outliers: { value: "SHARE", help: "Share of weights kept in 16 bits (default 0, at most 0.05)." },
    calibration: {
      value: "NAME",
      help: "Calibration text: mix (default on the CPU; encyclopedia, documentation, code and prose), self (what the " +
        "model writes itself, on the GPU), calibration (default of the embedded model; speeches and Moby Dick), " +
        "wikitext2 (its train split) or c4 from the hub, file:PATH; or several joined by +, as mix+self (default on " +
        "a GPU): self then has a quarter, the others share the rest. It decides: take text like what the model is for.",
    },
    windows: {
      value: "N",
      help: `Calibration windows (default ${CALIBRATION_SIZES.gpuSmall.windows} on a GPU, ` +
        `${CALIBRATION_SIZES.gpu.windows} there from a billion weights on, ` +
        `${CALIBRATION_SIZES.cpu.windows} on the CPU or a software adapter).`,
    },
    "window-tokens": {
      value: "N",
      help: `Tokens of a window, at most the model's context (default ${CALIBRATION_SIZES.cpu.windowTokens}).`,
    },
    device: {
      value: "NAME",
      help: "Where to quantize: gpu, cpu, or auto (default): the GPU where there is a real one that takes the " +
        "model's shapes, else the CPU. With calibration the two differ in rounding.",
    },
    tune: {
      help:
        "Tune scales and norms after that by gradients, towards the unquantized model's next-token distribution on " +
        "the calibration text: minutes on a GPU, which it needs, and the largest gain after the text. Costs nothing " +
        "later. Default there below a billion weights.",
    },
    untuned: { help: "Leave scales and norms as they were found." },
    seed: { value: "N", help: "Seed of everything random (default 1)." },
    layers: { value: "REGEX", help: "Leave matrices whose name matches in 16 bits." },
    report: {
      help: "Print bits and errors of each matrix: weighted by its inputs on the calibration text (of search, on " +
        "random tokens), which follows what a model loses, and the plain squared error, which doesn't.",
    },
    resume: { help: "Go on with the finished layers of an interrupted run." },
    ...WEBGPU_OPTION,
    force: { help: "Overwrite the packed file, or start an interrupted run again." },
  },
  async run(options) {
    const path = textOption(options, "out", "");
    if (path === "") throw new UsageError("--out is missing, must name the packed file to write");
    const wanted = readOptions(options);
    await refuseOverwrite(path, options);
    const startMs = performance.now();
    let quantizing = 1;
    const reports: MatrixReport[] = [];
    using line = createProgressLine("quantize");
    const { device, weights, bytes, bitsPerWeight, deviceBytes, tuning } = await quantizeModel(
      textOption(options, "model", "tiny"),
      path,
      {
        ...wanted,
        resume: options.resume === true,
        onProgress: line.update,
        onLayer: (finished, layers) => line.step(quantizing * finished / layers, `layer ${finished} of ${layers}`),
        onEpoch(epoch, epochs, divergence) {
          const share = quantizing + (1 - quantizing) * epoch / epochs;
          line.step(share, `tuning, epoch ${epoch} of ${epochs}, held-out divergence ${divergence.toFixed(4)} nats`);
        },
        onDevice({ reason }) {
          if (reason !== undefined) console.log(`quantizing on the CPU: ${reason}`);
        },
        onCalibration(used) {
          for (const note of noteCalibration(used, wanted)) {
            line.clear();
            console.log(note);
          }
        },
        onPlan({ tune, reason }) {
          if (tune) quantizing = QUANTIZING_SHARE;
          if (reason === undefined) return;
          line.clear();
          console.log(`not tuned: ${reason}`);
        },
        onDensities(chosen) {
          line.clear();
          console.log(typeof chosen === "string" ? `densities are uniform: ${chosen}` : describeDensities(chosen));
        },
        ...(options.report === true && {
          onMatrix(report) {
            reports.push(report);
            line.clear();
            console.log(describe(report));
          },
        }),
      },
    ).catch((error) => explain(error, textOption(options, "layers", "")));
    line.clear();
    if (tuning) console.log(describeTuning(tuning));
    console.log(
      `${path}: ${bitsPerWeight.toFixed(4)} bits a weight in the linear layers (${weights} weights, ${bytes} bytes)` +
        `${bitsPerWeight > BUDGET_BITS ? `, above ${BUDGET_BITS}` : ""}, ` +
        `${formatSeconds(performance.now() - startMs)} on ${device}${describeMemory(deviceBytes)}`,
    );
    for (const note of noteOutOfLine(reports)) console.log(note);
    return 0;
  },
};

/** Reads what is to be done. @throws {UsageError} */
function readOptions(options: OptionValues): QuantizeOptions {
  const densities = options.densities !== undefined && oneOfOption(options, "densities", DENSITY_RULES, "uniform");
  if (densities === "kl" && options.refine !== undefined) {
    throw new UsageError("--refine is given and --densities is kl, must be one of them");
  }
  if (options.tune === true && options.untuned === true) {
    throw new UsageError("--tune and --untuned are given, must be one of them");
  }
  const text = calibrationTextOption(options);
  const layers = textOption(options, "layers", "");
  return {
    method: oneOfOption(options, "method", QUANTIZE_METHODS, QUANTIZE_METHODS[0]),
    ...(densities && { densities }),
    ...(options.refine !== undefined && {
      refine: oneOfOption(options, "refine", REFINE_EVERY, SETTINGS.refineEvery),
    }),
    outliers: numberOption(options, "outliers", 0, 0, 0.05),
    calibration: {
      ...(text !== undefined && { text }),
      ...(options.windows !== undefined && { windows: integerOption(options, "windows", 1, 1, 65536) }),
      ...(options["window-tokens"] !== undefined &&
        { windowTokens: integerOption(options, "window-tokens", 2, 2, 65536) }),
    },
    device: oneOfOption(options, "device", QUANTIZING_PLACES, "auto"),
    seed: integerOption(options, "seed", 1, 0, 2 ** 32 - 1),
    ...((options.tune === true || options.untuned === true) && { tune: options.tune === true }),
    ...(layers !== "" && { exclude: readPattern(layers) }),
  };
}

/** @throws {UsageError} */
function readPattern(layers: string): RegExp {
  try {
    return new RegExp(layers);
  } catch {
    throw new UsageError(`--layers is ${layers}, must be a regular expression`);
  }
}

/** @throws {Error} in the command's words; of memory it names the options which need less */
function explain(error: unknown, layers: string): never {
  if (error instanceof NothingToQuantizeError) {
    throw new UsageError(`--layers is ${layers}, must leave a matrix to quantize`);
  }
  if (!(error instanceof OutOfMemoryError)) throw error;
  const hint = "fewer --windows or shorter --window-tokens take less, --device cpu none of it";
  throw new Error(`${error.message}; ${hint}`, { cause: error });
}

function describeTuning({ before, after, epoch }: TuningReport): string {
  const found = `divergence on held-out windows ${before.toFixed(4)} -> ${after.toFixed(4)} nats`;
  return epoch === 0 ? `not tuned: no epoch made less of it; ${found}` : `tuned, epoch ${epoch}: ${found}`;
}

function describeMemory(deviceBytes: number | undefined): string {
  const hostBytes = hostPeakBytes();
  const gigabytes = (bytes: number) => `${Number((bytes / 1e9).toPrecision(3))} GB`;
  const parts = [
    ...(deviceBytes === undefined ? [] : [`${gigabytes(deviceBytes)} of its memory`]),
    ...(hostBytes === undefined ? [] : [`${gigabytes(hostBytes)} of the host's`]),
  ];
  return parts.length === 0 ? "" : `, at most ${parts.join(", ")}`;
}

async function refuseOverwrite(path: string, options: OptionValues): Promise<void> {
  await refuseReplacing(path);
  if (options.force === true) return;
  if (await pathExists(path)) throw new Error(`${path} exists, must be overwritten with --force`);
  if (options.resume !== true && await pathExists(layersDirectory(path))) {
    throw new Error(
      `${layersDirectory(path)} holds an interrupted run, go on with --resume or start again with --force`,
    );
  }
}

/** How many layers have which density in each stage. */
function describeDensities(densities: StageDensities): string {
  const stages = STAGES.map(({ name }, stage) => {
    const counts = REFINE_EVERY.map((every) => densities.filter((layer) => layer[stage] === every).length);
    return `${name} ${counts.join("/")}`;
  });
  return `layers with one refined group in ${REFINE_EVERY.join("/")}: ${stages.join(", ")}`;
}

function describe(report: MatrixReport): string {
  const { name, rows, channels, refineEvery, bits, weightedError } = report;
  const { relativeError, relativeErrorTwoBit, relativeErrorRefined } = report;
  const perWeight = totalBits(bits) / (rows * channels);
  const weighted = weightedError === undefined ? "" : `weighted error ${formatPercent(weightedError)}, `;
  const refined = refineEvery === "none" ? "none" : `1 in ${refineEvery}`;
  return `${name}: ${rows} x ${channels}, ${perWeight.toFixed(4)} bits, ${refined} refined, ${weighted}` +
    `squared error ${formatPercent(relativeError)} (2-bit groups ${formatPercent(relativeErrorTwoBit)}, refined ${
      formatPercent(relativeErrorRefined)
    })`;
}
