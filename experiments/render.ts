// Markdown from result files: a page with its plot for each result and the index of all of them.
import { join } from "@std/path";
import { writeTextBeside } from "../model/host/atomic_file.ts";
import { pathExists } from "../model/host/path_exists.ts";
import { hasPlot, plotOf } from "./plots/plots.ts";
import { EXPERIMENTS } from "./registry.ts";
import { describePeers, PEERS_ID, peersBeside } from "./results/peers.ts";
import { type Cell, type Column, readResults, type Result, type Row } from "./results/result.ts";

/** Results by place (`<device>` or `<device>/<model>`), then by experiment. */
export type ResultsByPlace = ReadonlyMap<string, ReadonlyMap<string, Result>>;

/** Renders `<id>.md` and `<id>.svg` beside each result file of a directory. Returns path and text of each. */
export async function renderDirectory(directory: string): Promise<Map<string, string>> {
  const pages = new Map<string, string>();
  const results = await readResults(directory);
  for (const [id, result] of results) {
    const peers = peersBeside(results.get(PEERS_ID), id);
    pages.set(join(directory, `${id}.md`), renderResult(result, peers));
    if (hasPlot(result)) pages.set(join(directory, `${id}.svg`), await plotOf(result, peers));
  }
  return pages;
}

/**
 * Results below `root` by place, in alphabetical order: `<device>` for those of the embedded model and those that need
 * no model, `<device>/<model>` for those of another, and an empty text for those that lie in `root` itself.
 */
export async function readAllResults(root: string): Promise<Map<string, Map<string, Result>>> {
  if (!await pathExists(root)) throw new Error(`${root} is missing, run an experiment first`);
  const byPlace = new Map<string, Map<string, Result>>();
  const visit = async (place: string, levels: number) => {
    const results = await readResults(join(root, place));
    if (results.size > 0) byPlace.set(place, results);
    if (levels === 0) return;
    const folders: string[] = [];
    for await (const { name, isDirectory } of Deno.readDir(join(root, place))) if (isDirectory) folders.push(name);
    for (const name of folders.sort()) {
      if (place !== "" || name !== "quick") await visit(place === "" ? name : `${place}/${name}`, levels - 1);
    }
  };
  await visit("", 2);
  return byPlace;
}

/** Renders the pages of every place below `root` and the index `root/README.md`. */
export async function renderAll(root: string): Promise<Map<string, string>> {
  const byPlace = await readAllResults(root);
  const pages = new Map<string, string>();
  for (const place of byPlace.keys()) {
    for (const [path, page] of await renderDirectory(join(root, place))) pages.set(path, page);
  }
  return pages.set(join(root, "README.md"), renderIndex(byPlace));
}

export async function writePages(pages: ReadonlyMap<string, string>): Promise<void> {
  for (const [path, text] of pages) await writeTextBeside(path, text);
}

/**
 * One result as a Markdown page: claim, verdict, table, settings, provenance.
 *
 * @param peers rows of other programs that belong beside its table
 */
export function renderResult(result: Result, peers?: Result): string {
  const { id, title, claim, verdict, columns, rows, settings, device, environment } = result;
  const { model, seed, command, startedAt, commit, dirty, deno, webgpu } = environment;
  return [
    `# ${title}`,
    `**Claim.** ${claim}`,
    `**Verdict: ${verdict.status}.** Paper: ${withUnit(verdict.paper, verdict.unit)}. ` +
    `Measured: ${withUnit(verdict.measured, verdict.unit)}. ${verdict.note}`,
    renderRows(columns, rows),
    ...(peers ? [`${describePeers(peers)}:`, renderRows(peers.columns, peers.rows)] : []),
    ...(hasPlot(result) ? ["## Plot", `![${title}](${id}.svg)`] : []),
    "## Settings",
    renderTable(["setting", "value"], Object.entries(settings)),
    "## Provenance",
    `Model ${model.name} (sha256 \`${model.sha256.slice(0, 16)}\`), seed ${seed}, device ${device.name} ` +
    `(${device.adapter}${device.software ? ", software" : ""}), Deno ${deno}${webgpu ? `, ${webgpu}` : ""}, commit \`${
      commit.slice(0, 10)
    }\`` +
    `${dirty ? " with uncommitted changes" : ""}, started ${startedAt}, command \`${command}\`. ` +
    `Raw data: [${id}.json](${id}.json).`,
  ].join("\n\n") + "\n";
}

function renderRows(columns: readonly Column[], rows: readonly Row[]): string {
  return renderTable(columns.map(headingOf), rows.map((row) => columns.map(({ key }) => row[key] ?? null)));
}

/** Index of all results: one row a claim, one verdict a place. */
export function renderIndex(byPlace: ResultsByPlace): string {
  const places = [...byPlace.keys()];
  const rows = EXPERIMENTS.map(({ id, claim }) => {
    const results = places.map((place) => byPlace.get(place)?.get(id));
    const verdict = results.find((result) => result)?.verdict;
    return [
      `**${id}**: ${claim}`,
      verdict ? formatCell(verdict.paper) : null,
      verdict?.unit ?? null,
      ...results.map((result, i) => result ? indexCell(result, places[i], verdict!.unit) : null),
    ];
  });
  return [
    "# Results",
    "Rendered from the result files by `deno task render`; each cell links to its table and its plot, each table to its " +
    "raw data. `software` is a machine without a GPU: deterministic columns hold, timings are not measured there. A " +
    "second part names the model where it isn't the embedded one. " +
    "`deno task report` makes one page of all of it, with sortable tables and raw samples.",
    renderTable(["claim", "paper", "quantity", ...places], rows),
    ...places.filter((place) => byPlace.get(place)?.has(PEERS_ID)).map((place) =>
      `What other programs reach on ${place}, in runs of their own: [table](${place}/${PEERS_ID}.md).`
    ),
  ].join("\n\n") + "\n";
}

/** @param quantity what the row is about, which is said where the result has another */
function indexCell(result: Result, place: string, quantity: string): string {
  const { id, verdict: { measured, unit, status } } = result;
  const page = `${place}/${id}`;
  return `**${status}**${
    measured === null ? "" : `: ${withUnit(measured, unit === quantity ? "" : unit)}`
  } ([table](${page}.md)` +
    `${hasPlot(result) ? `, [plot](${page}.svg)` : ""})`;
}

/** A claimed or measured value as people read it. */
export function withUnit(value: Cell, unit: string): string {
  return value === null ? "not measured" : `${formatCell(value)}${unit ? ` ${unit}` : ""}`;
}

/** What stands above a column. */
export function headingOf({ label, unit }: Pick<Column, "label" | "unit">): string {
  return unit ? `${label} (${unit})` : label;
}

/** A Markdown table with padded columns, numbers to the right, as `deno fmt` leaves it. */
export function renderTable(header: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const body = rows.map((row) => row.map((cell) => formatCell(cell).replaceAll("|", "\\|")));
  const numeric = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] !== "string"));
  const widths = header.map((label, i) => Math.max(3, label.length, ...body.map((row) => row[i].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join(" | ")} |`;
  const rule = `| ${
    widths.map((width, i) => numeric[i] ? "-".repeat(width - 1) + ":" : "-".repeat(width)).join(" | ")
  } |`;
  return [line(header), rule, ...body.map(line)].join("\n");
}

/** A cell as people read it: five significant digits, no decimals from 1000 on. */
export function formatCell(value: Cell): string {
  if (value === null) return "-";
  if (typeof value === "string") return value;
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(5)));
}
