// `deno task bench --quantize`: how fast the layers of a published shape are quantized on the GPU.
import { openGpu } from "../kernels/gpu/gpu.ts";
import { measureQuantizing } from "../model/quantize/quantize_speed.ts";
import { configOfShape } from "../model/engine/random_source.ts";
import { headingOf, renderTable } from "../experiments/render.ts";
import { QUANTIZE_METHODS, twobitQuantizer } from "../quant/recipe.ts";
import { integerOption, oneOfOption, type OptionValues, shapeOption } from "./command.ts";

/** Options of `bench` that belong to `--quantize`. */
export const QUANTIZING_OPTIONS = {
  quantize: {
    value: "METHOD",
    help: `Measure quantizing a --shape instead, by its second layer: ${QUANTIZE_METHODS.join(", ")}.`,
  },
  windows: { value: "N", help: "Calibration windows of --quantize (default 128)." },
  "window-tokens": { value: "N", help: "Tokens of each (default 2048)." },
} as const;

const COLUMNS = [
  { key: "model", label: "model", unit: "" },
  { key: "method", label: "method", unit: "" },
  { key: "first_layer_s", label: "first layer", unit: "s" },
  { key: "layer_s", label: "every other layer", unit: "s" },
  { key: "all_layers_s", label: "all layers", unit: "s" },
  { key: "device_bytes", label: "device memory", unit: "bytes" },
  { key: "activation_bytes", label: "of that activations", unit: "bytes" },
  { key: "host_bytes", label: "host memory", unit: "bytes" },
] as const;

export async function benchQuantizing(options: OptionValues): Promise<number> {
  const method = oneOfOption(options, "quantize", QUANTIZE_METHODS, QUANTIZE_METHODS[0]);
  const shape = shapeOption(options, "shape", "");
  const windowTokens = integerOption(options, "window-tokens", 2048, 2, 65536);
  const plan = { windows: integerOption(options, "windows", 128, 1, 65536), windowTokens };
  using gpu = await openGpu();
  const speed = await measureQuantizing(gpu, configOfShape(shape, windowTokens), twobitQuantizer({}, method), plan);
  const row = {
    model: shape.name,
    method,
    first_layer_s: speed.firstLayerMs / 1000,
    layer_s: speed.layerMs / 1000,
    all_layers_s: (speed.firstLayerMs + (shape.layers - 1) * speed.layerMs) / 1000,
    device_bytes: speed.deviceBytes,
    activation_bytes: speed.activationBytes,
    host_bytes: speed.hostBytes,
  };
  if (options.json === true) {
    console.log(JSON.stringify({ device: gpu.adapterName, software: gpu.isSoftware, ...plan, rows: [row] }, null, 1));
  } else {
    console.log(`${gpu.adapterName}\n\n${renderTable(COLUMNS.map(headingOf), [COLUMNS.map(({ key }) => row[key])])}`);
  }
  return 0;
}
