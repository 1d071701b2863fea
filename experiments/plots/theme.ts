// Colours, sizes and fonts of all plots.
//
// A plot stands on its own background, which follows the reader's colour scheme; series keep their colour on both.

/** Colours that differ between the schemes, light first; specs use the light one. */
export const SCHEME: Readonly<Record<"background" | "text" | "line" | "grid", readonly [light: string, dark: string]>> =
  {
    background: ["#ffffff", "#0d1117"],
    text: ["#1f2328", "#e6edf3"],
    line: ["#59636e", "#9198a1"],
    grid: ["#d1d9e0", "#30363d"],
  };

/** Colours of series, in this order: each has a contrast of 3 or more to both backgrounds (a test keeps it so). */
export const SERIES: readonly string[] = [
  "#2f81d6",
  "#d1702a",
  "#2f9558",
  "#a06bd0",
  "#d9534f",
  "#7d8590",
  "#a87b1f",
  "#1a98a6",
];

const FORMATS: readonly (readonly [format: string, colour: string])[] = [
  ["twobit", SERIES[0]],
  ["f16", SERIES[5]],
];

/** Colour scale of the column `format`, the same in all panels of a plot. */
export const FORMAT_SCALE = { domain: FORMATS.map(([name]) => name), range: FORMATS.map(([, colour]) => colour) };

export const PAPER_COLOUR = "#d94a8c";

/** Width of a panel, in pixels; with its axes a plot is about 720 wide. */
export const PANEL_WIDTH = 640;

/** The name of each panel where one plot has many alike: above it, to the left. */
export const PANEL_HEADER = { labelAngle: 0, labelAlign: "left", labelOrient: "top", labelAnchor: "start" };

export const FONT = "system-ui, sans-serif";

export const FONT_SIZE = 11;

export const CONFIG = {
  background: SCHEME.background[0],
  font: FONT,
  padding: 12,
  view: { stroke: null },
  mark: { color: SERIES[0] },
  range: { category: SERIES },
  axis: {
    domainColor: SCHEME.line[0],
    tickColor: SCHEME.line[0],
    gridColor: SCHEME.grid[0],
    labelColor: SCHEME.text[0],
    titleColor: SCHEME.text[0],
    labelFontSize: FONT_SIZE,
    titleFontSize: 12,
    titleFontWeight: "normal",
    labelLimit: 300,
  },
  legend: {
    labelColor: SCHEME.text[0],
    titleColor: SCHEME.text[0],
    labelFontSize: FONT_SIZE,
    titleFontSize: 12,
    labelLimit: 300,
    orient: "top",
    symbolOpacity: 1,
    title: null,
  },
  header: { labelColor: SCHEME.text[0], labelFontSize: 12, labelFontWeight: "bold", title: null },
  title: { color: SCHEME.text[0], anchor: "start", fontSize: 13, fontWeight: "bold", offset: 10 },
  text: { color: SCHEME.text[0], fontSize: FONT_SIZE },
  rule: { color: SCHEME.line[0] },
  point: { size: 55, filled: true, opacity: 1 },
  line: { strokeWidth: 2 },
} as const;

/** A style element that turns a plot's light colours into dark ones where the reader wants that. */
export function schemeStyle(): string {
  const rules = Object.values(SCHEME).flatMap(([light, dark]) => [
    `.plot [fill="${light}"]{fill:${dark}}`,
    `.plot [stroke="${light}"]{stroke:${dark}}`,
  ]);
  return `<style>@media screen and (prefers-color-scheme:dark){${rules.join("")}}</style>`;
}
