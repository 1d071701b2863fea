// Options that `reproduce` and `experiment` share.
import { QUANTIZING_PLACES } from "../model/workers/quantizing_place.ts";
import { CALIBRATION_GRAMMAR } from "../model/text/calibration_names.ts";
import {
  calibrationTextOption,
  evaluationTextOption,
  integerOption,
  MODEL_HELP,
  oneOfOption,
  type Option,
  type OptionValues,
  taskFilesOption,
  TASKS_OPTION,
  TEXT_HELP,
  textOption,
  WEBGPU_OPTION,
} from "./command.ts";
import type { RunSettings } from "../experiments/context.ts";

export const RUN_OPTIONS: Readonly<Record<string, Option>> = {
  quick: { help: "Fewer rows and less text; writes to results/quick unless --out says otherwise." },
  model: { value: "tiny|DIR|F.gguf|hf:ORG/NAME[@REVISION]", help: `Model to work on: ${MODEL_HELP}.` },
  text: { value: "NAME", help: TEXT_HELP },
  tasks: TASKS_OPTION,
  calibration: { value: "NAME", help: `Calibration: ${CALIBRATION_GRAMMAR} (default as for quantize).` },
  quantized: {
    value: "F.safetensors",
    help: "What --model was packed into, for end_to_end (default: it packs the model itself, with densities as " +
      "quantize's) and, on a GPU, calibration, which measures it beside its own.",
  },
  device: {
    value: "NAME",
    help:
      "Where models are quantized and scored: gpu, cpu, or auto (default): the GPU where there is a real one that " +
      "takes the model's shapes, else the CPU.",
  },
  ...WEBGPU_OPTION,
  resume: {
    help: "Go on with the rows of accuracy, four_bit_share, outliers and calibration that an interrupted run of the " +
      "same settings finished.",
  },
  seed: { value: "N", help: "Seed of everything random (default 1)." },
  out: {
    value: "DIR",
    help:
      "Directory of the result files (default results/<device>, and a directory below it for a model that is not the " +
      "embedded one).",
  },
  json: { help: "Print the results as JSON instead of Markdown." },
};

/** Reads them. @throws {UsageError} */
export function readRunSettings(options: OptionValues): RunSettings {
  const calibration = calibrationTextOption(options);
  return {
    quick: options.quick === true,
    seed: integerOption(options, "seed", 1, 0, 2 ** 32 - 1),
    modelName: textOption(options, "model", "tiny"),
    textName: evaluationTextOption(options),
    ...(calibration !== undefined && { calibrationName: calibration }),
    taskFiles: taskFilesOption(options),
    ...(typeof options.quantized === "string" && { quantizedName: options.quantized }),
    device: oneOfOption(options, "device", QUANTIZING_PLACES, "auto"),
  };
}
