/**
 * Claim `bits`: 2.85 bits a weight with every scale and zero counted, for many models.
 *
 * @module
 */
import { addBits, bitsPerWeight, type BitTerms, NO_BITS, packedBits, totalBits } from "../quant/bits.ts";
import { PAPER_LAYOUT, stripBits } from "../quant/strip_layout.ts";
import { LINEAR_KINDS, linearShape } from "../model/llama.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/shapes.ts";
import type { Experiment, ExperimentContext } from "./experiment.ts";
import type { Column, Row } from "./result.ts";

/** The paper's claim, in bits a weight. */
const CLAIMED_BITS = 2.85;

type BitsOfMatrix = (rows: number, channels: number) => BitTerms;

/** The layouts of the table; the packed format without outliers, whose share is a setting of the quantizer. */
const LAYOUTS: readonly (readonly [name: string, bits: BitsOfMatrix])[] = [
  ["paper", (rows, channels) => stripBits(PAPER_LAYOUT, rows, channels)],
  ["twobit", (rows, channels) => packedBits(rows, channels, 8, 0)],
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
  needsGpu: false,
  async run(context) {
    const shapes = [...MODEL_SHAPES, await loadedShape(context)];
    const rows = shapes.flatMap((shape) => LAYOUTS.map(([layout, bits]) => describe(shape, layout, bits)));
    const measured = Math.max(
      ...rows.flatMap(({ layout, bits_per_weight: bits }) => layout === "twobit" ? [Number(bits)] : []),
    );
    return {
      settings: {
        "shapes": "config.json of each model on the Hugging Face hub (model/shapes.ts names them)",
        "paper layout": "reconstructed: quant/strip_layout.ts says how and what was inferred",
        "model size": "linear layers as packed; embeddings, head and norms in 16 bits",
      },
      columns: COLUMNS,
      rows,
      verdict: {
        paper: CLAIMED_BITS,
        measured,
        unit: "bits a weight at most, over all models",
        status: measured <= CLAIMED_BITS ? "reproduced" : "not reproduced",
        note: "Every stored bit of the linear layers is counted, padding included.",
      },
    };
  },
};

const COLUMNS: readonly Column[] = [
  { key: "model", label: "model", unit: "" },
  { key: "layout", label: "layout", unit: "" },
  { key: "weights", label: "weights in linear layers", unit: "" },
  ...Object.entries(TERM_LABELS).map(([key, label]) => ({ key, label, unit: "bits" })),
  { key: "bits_per_weight", label: "all", unit: "bits a weight" },
  { key: "model_bytes", label: "model", unit: "bytes" },
  { key: "model_bytes_f16", label: "model in f16", unit: "bytes" },
];

async function loadedShape({ model }: ExperimentContext): Promise<ModelShape> {
  const { name, model: { config } } = await model();
  return { ...config, name, source: "the loaded checkpoint" };
}

function describe(shape: ModelShape, layout: string, bits: BitsOfMatrix): Row {
  let terms = NO_BITS;
  let weights = 0;
  for (const kind of LINEAR_KINDS) {
    const [rows, channels] = linearShape(shape, kind);
    terms = addBits(terms, bits(rows, channels));
    weights += rows * channels;
  }
  const perWeight = bitsPerWeight(terms, weights);
  const others = otherWeights(shape);
  const linearWeights = weights * shape.layers;
  return {
    model: shape.name,
    layout,
    weights: linearWeights,
    ...perWeight,
    bits_per_weight: totalBits(perWeight),
    model_bytes: Math.ceil((totalBits(terms) * shape.layers) / 8) + 2 * others,
    model_bytes_f16: 2 * (linearWeights + others),
  };
}

/** Weights outside the linear layers: embedding, head, norms. Biases are left out. */
function otherWeights({ vocabulary, hidden, layers, tiedHead }: ModelShape): number {
  return vocabulary * hidden * (tiedHead ? 1 : 2) + hidden * (2 * layers + 1);
}
