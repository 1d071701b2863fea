// From a vega-lite specification to an SVG, without a DOM and the same on every machine.
import { escapeText } from "../results/escape_text.ts";
import { CONFIG, FONT, FONT_SIZE, schemeStyle } from "./theme.ts";

/** A vega-lite specification or a part of one. What vega-lite warns of is an error here. */
export type Spec = Readonly<Record<string, unknown>>;

/**
 * Draws a specification.
 *
 * @param name makes the identifiers inside the SVG unique, so that several fit into one page
 * @param title what the plot shows, for those who cannot see it
 * @throws {Error} when vega-lite finds fault with the specification, or a value has no place
 */
export async function renderPlot(name: string, title: string, spec: Spec): Promise<string> {
  // Lazily: most commands don't draw.
  const [vega, vegaLite] = await Promise.all([import("vega"), import("vega-lite")]);
  const { textMetrics, resetSVGDefIds } = vega as unknown as VegaInternals;
  textMetrics.width = estimateWidth;
  resetSVGDefIds();
  const whole = { ...spec, config: CONFIG } as unknown as Parameters<typeof vegaLite.compile>[0];
  const { spec: compiled } = vegaLite.compile(whole, { logger: strictLogger(name) });
  const view = new vega.View(vega.parse(compiled), { renderer: "none", logger: strictLogger(name) });
  const svg = await view.toSVG();
  view.finalize();
  return finish(name, title, svg);
}

/** Parts of vega that its types leave out. */
interface VegaInternals {
  readonly textMetrics: { width(item: { readonly fontSize?: number }, text: unknown): number };
  /** Identifiers inside an SVG start over: the same plot has the same text whatever was drawn before. */
  resetSVGDefIds(): void;
}

/** Widths as of a common sans-serif font: measured ones would differ with the fonts of the machine. */
function estimateWidth({ fontSize = 11 }: { readonly fontSize?: number }, text: unknown): number {
  return 0.56 * fontSize * String(text ?? "").length;
}

function strictLogger(name: string) {
  const refuse = (...message: readonly unknown[]): never => {
    throw new Error(`plot ${name}: ${message.join(" ")}`);
  };
  const logger = { level: () => logger, error: refuse, warn: refuse, info: () => logger, debug: () => logger };
  return logger as unknown as import("vega").LoggerInterface;
}

const COORDINATES = / (d|transform|x|y|x1|x2|y1|y2|width|height|viewBox)="([^"]*)"/g;

/**
 * Attributes that no reader meets: for interaction; labels inside an image, whose parts no screen reader enters; values
 * that SVG has by itself or that the root has for all.
 */
const DECORATION = new RegExp(
  [
    '(aria-[a-z]+|pointer-events|class|role)="[^"]*"(?<! class="marks")',
    'opacity="1"|stroke-width="1"|font-weight="normal"|transform="translate\\(0,0\\)"',
    `font-family="${FONT}"|font-size="${FONT_SIZE}px"`,
  ].map((attributes) => ` (${attributes})`).join("|"),
  "g",
);

/** Paths without extent, texts without letters. */
const INVISIBLE = /<path d="(M0,0h0v0h0Z)?"( display="none")?\/>|<text[^>]*\/>/g;

/** Groups with nothing in them, or with nothing but such a group. */
const EMPTY_GROUPS = /<g>(<g>(<g\/>|<g><\/g>)?<\/g>|<g\/>)?<\/g>|<g\/>/g;

/** Rounds coordinates, adds the dark scheme and a title, makes identifiers unique. */
function finish(name: string, title: string, svg: string): string {
  const lost = svg.match(/="[^"]*\b(NaN|undefined|Infinity)\b[^"]*"/);
  if (lost) throw new Error(`plot ${name}: ${lost[0]}, must be finite`);
  const rounded = svg.replace(COORDINATES, (_, key: string, value: string) => {
    // Two decimals are finer than a screen; what a machine's logarithm changes lies far below.
    const short = value.replace(/-?\d+\.\d+(e-?\d+)?/g, (number) => String(Number(Number(number).toFixed(2))));
    return ` ${key}="${short}"`;
  });
  return rounded
    .replaceAll(DECORATION, "")
    .replaceAll(/(id="|url\(#)(clip|gradient)/g, `$1${name}-$2`)
    .replaceAll(INVISIBLE, "")
    .replaceAll(EMPTY_GROUPS, "")
    .replace(/class="marks"/, `class="plot" role="img" font-family="${FONT}" font-size="${FONT_SIZE}px"`)
    .replace(/^(<svg[^>]*>)/, `$1<title>${escapeText(title)}</title>${schemeStyle()}`)
    .replaceAll("><g", ">\n<g") + "\n";
}
