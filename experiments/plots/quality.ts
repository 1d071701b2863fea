// Plots of `accuracy`, `four_bit_share` and `outliers`: quality of the quantized model against bits; and of
// `calibration`: against the text; of `decode_precision`: what options cost.
import { PLAIN_LOSS } from "../results/paper.ts";
import type { Result, Row } from "../results/result.ts";
import type { Spec } from "./render_plot.ts";
import { type Axis, scatterPanel, type ScatterPoint } from "./scatter.ts";
import { PANEL_HEADER, PANEL_WIDTH, PAPER_COLOUR, SCHEME } from "./theme.ts";

const ACCURACY: Axis = { title: "next token right (%), ± standard error (not paired)" };
const PERPLEXITY: Axis = { title: "perplexity above unquantized (%), ± paired" };
const BITS: Axis = { title: "bits a weight, everything counted" };

const PAPER_LIMIT = `paper: plain 2-bit loses more than ${PLAIN_LOSS} points`;

/** Families of methods by the start of their names; those not listed are a family of their own. */
const FAMILIES: Readonly<Record<string, string>> = {
  rtn2: "RTN, 2 bits",
  rtn4: "RTN, 4 bits",
  gptq2: "GPTQ, 2 bits",
  greenbit: "Greenbit-like",
  q2: "llama.cpp's Q2_K",
  paper: "paper's layout",
  twobit: "twobit",
};

/** All methods: accuracy, of tasks too where they were scored, and perplexity against bits. */
export function accuracyPlot({ rows, columns }: Result): Spec {
  const seriesOf = ({ method }: Row) => FAMILIES[String(method).split("_")[0]] ?? String(method);
  const tasks = columns.map(({ key }) => key).filter((key) => key.endsWith("_acc"));
  const quantized = rows.filter(({ method }) => method !== "fp16");
  const perplexities = quantized.map((row) => perplexityPoint(row, "bits_per_weight", seriesOf(row)));
  const accuracies = rows.map((row) => accuracyPoint(row, "bits_per_weight", seriesOf(row)));
  const ofTasks = rows.map((row) => ({ ...taskPoint(row, tasks), series: seriesOf(row) }));
  return stack(
    ...(tasks.length > 0
      ? [
        lossPanel(
          "Accuracy on tasks against bits (higher is better)",
          ofTasks,
          "mean over tasks (%), ± standard error",
        ),
      ]
      : []),
    lossPanel("Accuracy against bits (higher is better)", accuracies, ACCURACY.title),
    scatterPanel(
      "Perplexity against bits (lower is better)",
      perplexities,
      BITS,
      // Methods differ by orders of magnitude; but a good one can be better than unquantized by chance.
      { ...PERPLEXITY, log: perplexities.every(({ y }) => y > 0) },
    ),
  );
}

/** Accuracy of all methods; the unquantized model's and what the paper says that plain 2-bit loses are lines. */
function lossPanel(title: string, points: readonly ScatterPoint[], axis: string): Spec {
  const unquantized = points.find(({ label }) => label === "fp16")?.y ?? NaN;
  return scatterPanel(
    title,
    points.filter(({ label }) => label !== "fp16"),
    BITS,
    { title: axis, include: [unquantized] },
    [
      level(unquantized, "unquantized", SCHEME.line[0], -6, 0.75),
      level(unquantized - PLAIN_LOSS, PAPER_LIMIT, PAPER_COLOUR, 12, 1),
    ],
  );
}

/** Densities and picks of refined groups; the paper's limit is a slope. */
export function fourBitSharePlot({ rows }: Result): Spec {
  const seriesOf = ({ pick }: Row) => `picked by ${pick}`;
  const joined = { joined: true };
  const start = rows.find(({ method }) => method === "twobit_1in8_error");
  const [bits, top1] = [Number(start?.bits_per_weight), Number(start?.top1)];
  const slope = [[bits, top1], [1.1 * bits, top1 + 0.5]].map(([x, y]) => ({ x, y }));
  return stack(
    scatterPanel(
      "Accuracy against bits, by the share of 4-bit groups (higher is better)",
      rows.map((row) => ({ ...accuracyPoint(row, "bits_per_weight", seriesOf(row)), ...joined })),
      BITS,
      ACCURACY,
      start ? [paperLine(slope, "paper: less than 0.5 points for 10 % more bits")] : [],
    ),
    scatterPanel(
      "Perplexity against bits, by the share of 4-bit groups (lower is better)",
      rows.map((row) => ({ ...perplexityPoint(row, "bits_per_weight", seriesOf(row)), ...joined })),
      BITS,
      PERPLEXITY,
    ),
  );
}

/** Outliers: the paper's claim is a corner that a point must lie above and left of. */
export function outliersPlot({ rows }: Result): Spec {
  const seriesOf = ({ groups }: Row) =>
    groups === "-" ? "no outliers" : `outliers in ${String(groups).replace("_", "-")} groups`;
  const without = Number(rows[0].top1);
  const most = Math.max(...rows.map(({ more_bits: more }) => Number(more)));
  const corner = [[0, without + 0.5], [3, without + 0.5], [3, without + 1]].map(([x, y]) => ({ x, y }));
  const bits: Axis = { title: "more bits than without outliers (%), on this model's short rows", include: [most, 3] };
  return stack(
    scatterPanel(
      "Accuracy against the cost of outliers (higher is better)",
      rows.map((row) => accuracyPoint(row, "more_bits", seriesOf(row))),
      bits,
      { ...ACCURACY, include: [without + 1] },
      [paperLine(corner, "paper: above and left of this corner")],
    ),
    scatterPanel(
      "Perplexity against the cost of outliers (lower is better)",
      rows.map((row) => perplexityPoint(row, "more_bits", seriesOf(row))),
      bits,
      PERPLEXITY,
    ),
  );
}

/** Texts that calibrate and files that `quantize` wrote, a panel for each text that is evaluated. */
export function calibrationPlot({ rows }: Result): Spec {
  const values = rows.flatMap((row) =>
    ["corrected", "feedback", "file"].flatMap((targets) => {
      if (typeof row[`${targets}_ratio`] !== "number") return [];
      const [ratio, error] = [Number(row[`${targets}_ratio`]), Number(row[`${targets}_ratio_error`])];
      const panel = `evaluated on ${row.evaluated}`;
      return { panel, text: row.text, targets, ratio, low: ratio - error, high: ratio + error };
    })
  );
  const panels = [...new Set(values.map(({ panel }) => panel))];
  const across = { type: "quantitative", title: "perplexity / unquantized, ± paired", scale: { zero: false } };
  return {
    data: { values },
    facet: { row: { field: "panel", type: "nominal", sort: panels, title: null, header: PANEL_HEADER } },
    spec: {
      width: PANEL_WIDTH - 40,
      height: { step: 20 },
      encoding: {
        y: { field: "text", type: "nominal", sort: null, title: "calibrated on", axis: { grid: true } },
        color: { field: "targets", type: "nominal", title: null },
      },
      layer: intervalLayers("ratio", across),
    },
  };
}

/** Loss above the default's of each option. */
export function decodePrecisionPlot({ rows }: Result): Spec {
  const values = rows.filter(({ difference_error: error }) => Number(error) > 0).map((row) => {
    const [difference, error] = [Number(row.difference), Number(row.difference_error)];
    return { option: row.precision, difference, low: difference - error, high: difference + error };
  });
  const across = { type: "quantitative", title: "loss above the default's (nats a token), ± paired" };
  return {
    data: { values },
    width: PANEL_WIDTH - 40,
    height: { step: 48 },
    encoding: { y: { field: "option", type: "nominal", sort: null, title: null, axis: { grid: true } } },
    layer: intervalLayers("difference", across),
  };
}

/** Points of a field with lines from `low` to `high` across. */
function intervalLayers(field: string, across: Spec): Spec[] {
  return [
    {
      mark: { type: "rule", strokeWidth: 1.5 },
      encoding: { x: { field: "low", ...across }, x2: { field: "high" } },
    },
    { mark: "point", encoding: { x: { field, ...across } } },
  ];
}

function accuracyPoint(row: Row, x: string, series: string): ScatterPoint {
  return { label: labelOf(row), series, x: Number(row[x]), y: Number(row.top1), error: Number(row.top1_error) };
}

/** The mean over tasks, whose errors are independent. */
function taskPoint(row: Row, tasks: readonly string[]): Omit<ScatterPoint, "series"> {
  const sum = tasks.reduce((total, key) => total + Number(row[key]), 0);
  const squares = tasks.reduce((total, key) => total + Number(row[`${key}_error`]) ** 2, 0);
  const x = Number(row.bits_per_weight);
  return { label: labelOf(row), x, y: sum / tasks.length, error: Math.sqrt(squares) / tasks.length };
}

function perplexityPoint(row: Row, x: string, series: string): ScatterPoint {
  const y = 100 * (Number(row.perplexity_ratio) - 1);
  const error = 100 * Number(row.perplexity_ratio_error);
  return { label: labelOf(row), series, x: Number(row[x]), y, error };
}

/** A sweep's rows are all ours: what distinguishes them is enough. */
function labelOf({ method }: Row): string {
  return String(method).replace(/^twobit_(?=\d|none|all|no_|two_bit|four_bit|both)/, "").replaceAll("_", " ").replace(
    "1in",
    "1 in ",
  );
}

function stack(...panels: readonly Spec[]): Spec {
  return { vconcat: panels, spacing: 32 };
}

/** A horizontal line over the whole panel; its meaning ends at this share of the width. */
function level(value: number, text: string, color: string, dy: number, share: number): Spec {
  return {
    data: { values: [{ value, text }] },
    encoding: { y: { field: "value", type: "quantitative" } },
    layer: [
      { mark: { type: "rule", color, strokeDash: [5, 4] } },
      {
        mark: { type: "text", color, align: "right", dx: -4, dy },
        encoding: { x: { value: share * PANEL_WIDTH }, text: { field: "text" } },
      },
    ],
  };
}

/** A line that the paper's claim draws, with its meaning at the last point. */
function paperLine(points: readonly { readonly x: number; readonly y: number }[], text: string): Spec {
  const position = { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } };
  return {
    layer: [
      {
        data: { values: points.map((point, order) => ({ ...point, order })) },
        mark: { type: "line", color: PAPER_COLOUR, strokeDash: [5, 4] },
        encoding: { ...position, order: { field: "order", type: "quantitative" } },
      },
      {
        data: { values: points.slice(-1).map((point) => ({ ...point, text })) },
        mark: { type: "text", color: PAPER_COLOUR, align: "left", dx: 6, dy: -6 },
        encoding: { ...position, text: { field: "text" } },
      },
    ],
  };
}
