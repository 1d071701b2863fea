/**
 * `deno task quantize`: a checkpoint to a packed file.
 *
 * @module
 */
import { OutOfMemoryError } from "../kernels/gpu/device_errors.ts";
import { Gpu } from "../kernels/gpu/gpu.ts";
import { REFINE_EVERY, type RefineEvery } from "../quant/format.ts";
import { totalBits } from "../quant/bits.ts";
import { reportQuantization } from "../quant/report.ts";
import { type Quantizer, storedBytes, type StoredTensor } from "../quant/quantize.ts";
import { LINEAR_KINDS, linearName } from "../model/llama/layer.ts";
import type { Linear } from "../model/llama/llama.ts";
import { hashWeights, openModel } from "../model/load.ts";
import { readFittingTokenizer } from "../model/text/tokenizer.ts";
import { layersDirectory, writePackedFile } from "../model/quantize/packed_writer.ts";
import { BUDGET_BITS, DEFAULT_WINDOWS, FEEDBACK, SETTINGS } from "../quant/recipe.ts";
import { pathExists } from "../model/host/path_exists.ts";
import type { CpuPool } from "../model/workers/cpu_pool.ts";
import { loadText } from "../model/text/text.ts";
import { sampleWindows } from "../model/text/windows.ts";
import {
  type Command,
  integerOption,
  MODEL_HELP,
  numberOption,
  type OptionValues,
  textOption,
  UsageError,
} from "./command.ts";
import { hostPeakBytes } from "./host_peak.ts";
import { createProgressLine, formatSeconds } from "./progress.ts";
import { methodOption, methodQuantizer, type QuantizeMethod } from "./quantize_method.ts";
import { openQuantizingDevice, QUANTIZING_DEVICE_HELP, quantizingDeviceOption } from "./quantizing_device.ts";

/** Quantizes a checkpoint into a packed file. */
export const quantize: Command = {
  name: "quantize",
  summary: "Quantizes the linear layers of a checkpoint to 2 and 4 bits, and with --outliers 16, into one packed file.",
  positionals: [],
  options: {
    model: {
      type: "string",
      value: "tiny|DIR|F.gguf|hf:ORG/NAME[@REVISION]",
      help: `Checkpoint to quantize: ${MODEL_HELP}.`,
    },
    out: { type: "string", value: "F.safetensors", help: "Packed file to write; required." },
    method: {
      type: "string",
      value: "NAME",
      help: "corrected (default): error feedback towards corrected targets; feedback: error feedback alone; " +
        "search: scales only, no calibration.",
    },
    refine: {
      type: "string",
      value: "N",
      help: `One refined group in every N: ${REFINE_EVERY.join(", ")} (default ${SETTINGS.refineEvery}).`,
    },
    outliers: {
      type: "string",
      value: "SHARE",
      help: "Share of weights kept in 16 bits (default 0, at most 0.05).",
    },
    calibration: { type: "string", value: "NAME", help: "Calibration text: calibration (default) or file:PATH." },
    windows: { type: "string", value: "N", help: `Calibration windows (default ${DEFAULT_WINDOWS}).` },
    "window-tokens": { type: "string", value: "N", help: "Tokens of a window (default 512)." },
    device: { type: "string", value: "NAME", help: QUANTIZING_DEVICE_HELP },
    seed: { type: "string", value: "N", help: "Seed of everything random (default 1)." },
    layers: { type: "string", value: "REGEX", help: "Leave matrices whose name matches in 16 bits." },
    report: { type: "boolean", help: "Print bits and error of each layer." },
    resume: { type: "boolean", help: "Go on with the finished layers of an interrupted run." },
    force: { type: "boolean", help: "Overwrite the packed file, or start an interrupted run again." },
  },
  async run(options) {
    const path = textOption(options, "out", "");
    if (path === "") throw new UsageError("--out is missing, must name the packed file to write");
    const settings = readSettings(options);
    const wanted = quantizingDeviceOption(options);
    await refuseOverwrite(path, options);
    const startMs = performance.now();
    using line = createProgressLine("quantize");
    using checkpoint = await openModel(
      textOption(options, "model", "tiny"),
      (share, file) => line.update(share, file),
    );
    if ("packed" in checkpoint) throw new Error(`${checkpoint.name} is packed already, must be a checkpoint directory`);
    const tokenizer = await readFittingTokenizer(checkpoint);
    const text = await loadText(settings.calibration);
    const { context } = checkpoint.config;
    const length = Math.min(settings.windowTokens, context);
    const calibration = settings.method === "search"
      ? []
      : sampleWindows(text, tokenizer, { length, count: settings.windows }).windows;
    const excluded = settings.layers === "" ? undefined : new RegExp(settings.layers);
    if (excluded && allMatch(excluded, checkpoint.config.layers)) {
      throw new UsageError(`--layers is ${settings.layers}, must leave a matrix to quantize`);
    }
    const totals = { bytes: 0, weights: 0 };
    using place = await openQuantizingDevice(wanted, checkpoint.config, quantizerFor(settings));
    if (place.reason !== undefined) console.log(`quantizing on the CPU: ${place.reason}`);
    await writePackedFile(place.device, checkpoint, {
      path,
      metadata: {
        sourceSha256: await hashWeights(checkpoint),
        settings: JSON.stringify({ ...settings, device: place.kind, feedback: FEEDBACK, quantizer: SETTINGS }),
      },
      resume: options.resume === true,
      calibration,
      correctTarget: settings.method === "corrected",
      quantizerOf: (layer, kind) => excluded?.test(linearName(layer, kind)) ? undefined : quantizerFor(settings),
      onProgress: (share, step) => line.update(share, step),
      onLayer(stored, { index, original }) {
        for (const kind of LINEAR_KINDS) {
          const { rows, channels } = original.linears[kind];
          const tensor = stored.get(kind);
          totals.weights += rows * channels;
          totals.bytes += tensor ? storedBytes(tensor) : 2 * rows * channels;
          if (!tensor || options.report !== true) continue;
          line.clear();
          console.log(describe(linearName(index, kind), original.linears[kind], tensor));
        }
      },
    }).catch(explainMemory);
    line.clear();
    const bits = (8 * totals.bytes) / totals.weights;
    console.log(
      `${path}: ${
        bits.toFixed(4)
      } bits a weight in the linear layers (${totals.weights} weights, ${totals.bytes} bytes)` +
        `${bits > BUDGET_BITS ? `, above ${BUDGET_BITS}` : ""}, ${
          formatSeconds(performance.now() - startMs)
        } on ${place.name}${describeMemory(place.device)}`,
    );
    return 0;
  },
};

/** What the packed file's metadata records of how it was made. */
interface QuantizeSettings {
  readonly method: QuantizeMethod;
  readonly refine: RefineEvery;
  readonly outliers: number;
  readonly calibration: string;
  readonly windows: number;
  readonly windowTokens: number;
  readonly seed: number;
  readonly layers: string;
}

function readSettings(options: OptionValues): QuantizeSettings {
  const method = methodOption(options, "method");
  const wanted = textOption(options, "refine", String(SETTINGS.refineEvery));
  const refine = REFINE_EVERY.find((every) => String(every) === wanted);
  if (!refine) throw new UsageError(`--refine is ${wanted}, must be one of ${REFINE_EVERY.join(", ")}`);
  const calibration = textOption(options, "calibration", "calibration");
  if (calibration !== "calibration" && !calibration.startsWith("file:")) {
    throw new UsageError(`--calibration is ${calibration}, must be calibration or file:PATH`);
  }
  const layers = textOption(options, "layers", "");
  try {
    new RegExp(layers);
  } catch {
    throw new UsageError(`--layers is ${layers}, must be a regular expression`);
  }
  return {
    method,
    refine,
    outliers: numberOption(options, "outliers", 0, 0, 0.05),
    calibration,
    windows: integerOption(options, "windows", DEFAULT_WINDOWS, 1, 65536),
    windowTokens: integerOption(options, "window-tokens", 512, 2, 65536),
    seed: integerOption(options, "seed", 1, 0, 2 ** 32 - 1),
    layers,
  };
}

function quantizerFor({ method, refine, outliers, seed }: QuantizeSettings): Quantizer {
  return methodQuantizer(method, {
    refineEvery: refine,
    outliers: { ...SETTINGS.outliers, share: outliers },
    seed,
  });
}

/** @throws {Error} that names the options which need less memory */
function explainMemory(error: unknown): never {
  if (!(error instanceof OutOfMemoryError)) throw error;
  const hint = "fewer --windows or shorter --window-tokens take less, --device cpu none of it";
  throw new Error(`${error.message}; ${hint}`, { cause: error });
}

function describeMemory(device: CpuPool | Gpu): string {
  const hostBytes = hostPeakBytes();
  const gigabytes = (bytes: number) => `${Number((bytes / 1e9).toPrecision(3))} GB`;
  const parts = [
    ...(device instanceof Gpu ? [`${gigabytes(device.peakBytes)} of its memory`] : []),
    ...(hostBytes === undefined ? [] : [`${gigabytes(hostBytes)} of the host's`]),
  ];
  return parts.length === 0 ? "" : `, at most ${parts.join(", ")}`;
}

function allMatch(excluded: RegExp, layers: number): boolean {
  return Array.from({ length: layers }, (_, i) => i)
    .every((layer) => LINEAR_KINDS.every((kind) => excluded.test(linearName(layer, kind))));
}

async function refuseOverwrite(path: string, options: OptionValues): Promise<void> {
  if ((await Deno.stat(path).catch(() => undefined))?.isDirectory) {
    throw new Error(`${path} is a directory, must be a file`);
  }
  if (options.force === true) return;
  if (await pathExists(path)) throw new Error(`${path} exists, must be overwritten with --force`);
  if (options.resume !== true && await pathExists(layersDirectory(path))) {
    throw new Error(
      `${layersDirectory(path)} holds an interrupted run, go on with --resume or start again with --force`,
    );
  }
}

function describe(name: string, { weights, rows, channels }: Linear, stored: StoredTensor): string {
  if (stored.kind !== "packed") throw new TypeError(`${name} is stored as ${stored.kind}, must be packed`);
  const { bits, relativeError, relativeErrorTwoBit, relativeErrorRefined } = reportQuantization(weights, stored.tensor);
  const perWeight = totalBits(bits) / (rows * channels);
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  return `${name}: ${rows} x ${channels}, ${perWeight.toFixed(4)} bits, squared error ${percent(relativeError)} ` +
    `(2-bit groups ${percent(relativeErrorTwoBit)}, refined ${percent(relativeErrorRefined)})`;
}
