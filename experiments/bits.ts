// Claim `bits`: 2.85 bits a weight with every scale and zero counted, for many models.
import { addBits, bitsPerWeight, type BitTerms, NO_BITS, totalBits } from "../quant/bits.ts";
import { FORMAT_VERSION } from "../quant/format.ts";
import { quantizedBits, type Quantizer, storedBytes } from "../quant/quantize.ts";
import { PAPER_LAYOUT } from "../quant/baselines/strip_layout.ts";
import { packedDeviceBytes } from "../kernels/matrix/packed_matrix.ts";
import { LINEAR_KINDS, linearShape } from "../model/llama/layer.ts";
import { startOnCpu } from "../model/quantize/cpu_device.ts";
import { quantizeLayers } from "../model/quantize/quantize_layers.ts";
import { BUDGET_BITS, SETTINGS } from "../quant/recipe.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import type { Column, Row } from "./results/result.ts";

/** A layout of the table: its bits follow from the shape, and without calibration a model is quickly packed in it. */
interface Layout {
  readonly name: string;
  readonly quantizer: Quantizer;
  /** Outliers beside what the quantizer stores, as a share of all weights; such a layout is only counted. */
  readonly outlierShare?: number;
}

/**
 * Outliers of the paper's fourth version, a share of all weights that lies in 2-bit groups. Choice: 32 bits each, a
 * channel and a value, and nothing for where a row's begin: that makes the 2.91 bits that it reports.
 */
const PAPER_OUTLIER_SHARE = 0.002;

const PAPER: Quantizer = { kind: "strips", settings: { layout: PAPER_LAYOUT, search: "minmax" } };

const LAYOUTS: readonly Layout[] = [
  { name: "paper", quantizer: PAPER },
  { name: "paper_outliers", quantizer: PAPER, outlierShare: PAPER_OUTLIER_SHARE },
  { name: "twobit", quantizer: { kind: "twobit", settings: SETTINGS } },
];

const TERM_LABELS: Readonly<Record<keyof BitTerms, string>> = {
  codes: "codes",
  refine: "refine plane",
  scaleCodes: "scale codes",
  zeroCodes: "zero codes",
  picks: "picks, spare",
  secondOrder: "second order",
  outliers: "outliers",
  outlierStarts: "outlier starts",
};

export const bits: Experiment = {
  id: "bits",
  title: "Bits a weight",
  claim: "2.85 bits a weight, all scales and zeros counted, across model families and sizes.",
  differs:
    "The paper's layout is reconstructed, and a row; ours has other zeros, and its 4-bit groups by row. Counted: " +
    "no error.",
  needsGpu: false,
  needsModel: true,
  async run(context) {
    const loaded = await loadedShape(context);
    const rows: Row[] = MODEL_SHAPES.flatMap((shape) => LAYOUTS.map((layout) => describe(shape, layout)));
    for (const [i, layout] of LAYOUTS.entries()) {
      context.progress(i / LAYOUTS.length, `packing ${loaded.name} as ${layout.name}`);
      const row = describe(loaded, layout);
      const isPacked = layout.outlierShare === undefined;
      const bytes = isPacked ? await packReally(context, layout.quantizer, Number(row.linear_bytes)) : null;
      rows.push({ ...row, packed_bytes: bytes });
    }
    const ours = rows.filter(({ layout }) => String(layout).startsWith("twobit"));
    const measured = Math.max(...ours.map(({ bits_per_weight: bits }) => Number(bits)));
    return {
      settings: {
        "shapes": "config.json of each model on the Hugging Face hub (model/llama/shapes.ts names them)",
        "paper": "the paper's layout as reconstructed: quant/baselines/strip_layout.ts says how and what was inferred",
        "paper_outliers":
          "the same with 0.2 % outliers, in 2-bit groups, of 32 bits each: the paper's fourth version, whose 2.91 bits are " +
          "thus explained (by a secondary source, ArXivQA)",
        "twobit": `packed format, version ${FORMAT_VERSION}, one refined group in 8, no outliers`,
        "on the device": "what the kernels read: rows in steps of four, scales in whole blocks",
        "model": "linear layers as packed; embeddings, head and norms in 16 bits",
      },
      columns: COLUMNS,
      rows,
      verdict: {
        paper: BUDGET_BITS,
        measured,
        unit: "bits a weight at most, over all models",
        status: measured <= BUDGET_BITS ? "reproduced" : "not reproduced",
        note:
          `Every stored bit of the linear layers is counted, padding included. The bytes of ${loaded.name}, really ` +
          "packed in each layout, equal the formula's.",
      },
    };
  },
};

const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "layout", label: "layout", unit: "" },
  { key: "bits_per_weight", label: "all", unit: "bits a weight" },
  ...Object.entries(TERM_LABELS).map(([key, label]) => ({ key, label, unit: "bits" })),
  { key: "device_bits_per_weight", label: "on the device", unit: "bits a weight" },
  { key: "weights", label: "weights in linear layers", unit: "" },
  { key: "linear_bytes", label: "linear layers", unit: "bytes" },
  { key: "packed_bytes", label: "really packed", unit: "bytes" },
  { key: "model_bytes", label: "model", unit: "bytes" },
  { key: "model_bytes_f16", label: "model in f16", unit: "bytes" },
];

async function loadedShape({ opened }: ExperimentContext): Promise<ModelShape> {
  const { name, checkpoint: { config } } = await opened();
  return { ...config, name, source: "the loaded checkpoint" };
}

function describe(shape: ModelShape, { name, quantizer, outlierShare }: Layout): Row {
  let terms = NO_BITS;
  let weights = 0;
  let deviceBits = 0;
  for (const kind of LINEAR_KINDS) {
    const [rows, channels] = linearShape(shape, kind);
    terms = addBits(terms, quantizedBits(rows, channels, quantizer));
    if (outlierShare !== undefined) {
      terms = addBits(terms, { ...NO_BITS, outliers: 32 * Math.round(outlierShare * rows * channels) });
    }
    weights += rows * channels;
    if (quantizer.kind === "twobit") {
      deviceBits += 8 * packedDeviceBytes(rows, channels, quantizer.settings.refineEvery);
    }
  }
  const perWeight = bitsPerWeight(terms, weights);
  const others = otherWeights(shape);
  const linearWeights = weights * shape.layers;
  const linearBytes = (totalBits(terms) * shape.layers) / 8;
  return {
    model: shape.name,
    layout: name,
    bits_per_weight: totalBits(perWeight),
    ...perWeight,
    device_bits_per_weight: deviceBits === 0 ? null : deviceBits / weights,
    weights: linearWeights,
    linear_bytes: linearBytes,
    packed_bytes: null,
    model_bytes: linearBytes + 2 * others,
    model_bytes_f16: 2 * (linearWeights + others),
  };
}

/** Weights outside the linear layers: embedding, head, norms. Biases are left out. */
function otherWeights({ vocabulary, hidden, layers, tiedHead }: ModelShape): number {
  return vocabulary * hidden * (tiedHead ? 1 : 2) + hidden * (2 * layers + 1);
}

/**
 * Bytes of the run's model's matrices: those of the first layer, really packed, for all layers, which have the same shapes.
 *
 * @throws {RangeError} when they aren't the formula's
 */
async function packReally(context: ExperimentContext, quantizer: Quantizer, formulaBytes: number): Promise<number> {
  using run = startOnCpu(context.pool);
  const { config, readLayer } = await (await context.place()).layers();
  let bytes = 0;
  await quantizeLayers(run, { config: { ...config, layers: 1 }, readLayer }, {
    quantizerOf: () => quantizer,
    onLayer(stored) {
      for (const tensor of stored.values()) bytes += config.layers * storedBytes(tensor);
    },
  });
  if (bytes !== formulaBytes) throw new RangeError(`packed tensors have ${bytes} bytes, must have ${formulaBytes}`);
  return bytes;
}
