// A panel of named points with error bars: quality against what it costs.
import { placeLabels } from "./place_labels.ts";
import type { Spec } from "./render_plot.ts";
import { PANEL_WIDTH, SCHEME, SERIES } from "./theme.ts";

export interface ScatterPoint {
  readonly label: string;
  /** Colour: the points of a series share it. */
  readonly series: string;
  readonly x: number;
  readonly y: number;
  /** Standard error of y. */
  readonly error: number;
  /** Whether a thin line joins it to the other points of its series that say so too. */
  readonly joined?: boolean;
}

export interface Axis {
  readonly title: string;
  readonly log?: boolean;
  /** Values that the axis must show besides the points. */
  readonly include?: readonly number[];
}

const HEIGHT = 330;
/** Room around the points, as a share of the axis. */
const MARGIN = 0.06;

/** A panel; `extra` are further layers on the same axes, drawn below the points. */
export function scatterPanel(
  title: string,
  points: readonly ScatterPoint[],
  xAxis: Axis,
  yAxis: Axis,
  extra: readonly Spec[] = [],
): Spec {
  const x = createScale(points.map((point) => point.x), xAxis, PANEL_WIDTH);
  const ends = points.flatMap(({ y, error }) => [y - error, y, y + error]);
  const y = createScale(ends.filter((end) => end > 0 || !yAxis.log), yAxis, HEIGHT);
  return {
    title,
    width: PANEL_WIDTH,
    height: HEIGHT,
    layer: [
      ...extra,
      pointsLayer(points, x, y),
      ...labelLayers(points.map(({ label, ...at }) => ({ label, x: x.toPixel(at.x), y: HEIGHT - y.toPixel(at.y) }))),
    ],
  };
}

/** Points with their error bars, and lines between those that are joined. */
function pointsLayer(points: readonly ScatterPoint[], x: Scale, y: Scale): Spec {
  const values = points.map((point) => ({
    ...point,
    // On a logarithmic axis a bar that reaches zero ends at the axis.
    low: Math.max(point.y - point.error, y.domain[0]),
    high: point.y + point.error,
  }));
  const atY = { y: { field: "y", ...y.channel } };
  return {
    data: { values },
    encoding: {
      x: { field: "x", ...x.channel },
      color: { field: "series", type: "nominal", title: null, scale: colours(points.map(({ series }) => series)) },
    },
    layer: [
      {
        transform: [{ filter: "datum.joined === true" }],
        mark: { type: "line", strokeWidth: 1, opacity: 0.7 },
        encoding: atY,
      },
      {
        mark: { type: "rule", strokeWidth: 1.5, opacity: 0.6 },
        encoding: { y: { field: "low", ...y.channel }, y2: { field: "high" } },
      },
      { mark: { type: "point" }, encoding: atY },
    ],
  };
}

/** Ours come first and so have the first colour; the others in the order of their rows. */
function colours(series: readonly string[]): Spec {
  const domain = [...new Set(series)].sort((a, b) => Number(b.startsWith("twobit")) - Number(a.startsWith("twobit")));
  return { domain, range: domain.map((_, i) => SERIES[i % SERIES.length]) };
}

interface Scale {
  readonly domain: readonly [number, number];
  /** The part of a vega-lite channel that says scale and axis. */
  readonly channel: Spec;
  toPixel(value: number): number;
}

/** A scale whose pixels are known here: labels are placed by them. */
function createScale(values: readonly number[], { title, log = false, include = [] }: Axis, pixels: number): Scale {
  const [from, to] = log ? [Math.log, Math.exp] : [(v: number) => v, (v: number) => v];
  const ends = [...values, ...include].map(from);
  const [min, max] = [Math.min(...ends), Math.max(...ends)];
  const margin = (max - min || 1) * MARGIN;
  const [low, high] = [min - margin, max + margin];
  const domain = [low, high].map((end) => Number(to(end).toPrecision(6))) as [number, number];
  return {
    domain,
    channel: {
      type: "quantitative",
      title,
      scale: { domain, type: log ? "log" : "linear", nice: false, ...(!log && { zero: false }) },
    },
    toPixel: (value) => ((from(value) - low) / (high - low)) * pixels,
  };
}

function labelLayers(points: readonly { readonly x: number; readonly y: number; readonly label: string }[]): Spec[] {
  const places = placeLabels(points, PANEL_WIDTH, HEIGHT);
  return (["left", "right", "center"] as const).map((align) => ({
    data: {
      values: points.flatMap(({ x, y, label }, i) =>
        places[i].align === align ? [{ x: x + places[i].dx, y: y + places[i].dy, label }] : []
      ),
    },
    mark: { type: "text", align, color: SCHEME.text[0] },
    encoding: {
      x: { field: "x", type: "quantitative", scale: null },
      y: { field: "y", type: "quantitative", scale: null },
      text: { field: "label" },
    },
  }));
}
