// Numbers in hand-written pages: every one is filled in from a result file.
//
//     <!-- results: headline -->  the table of claims  <!-- /results -->
//     <!-- results: software/accuracy | twobit | perplexity_ratio -->1.06<!-- /results -->
//     <!-- results: software/accuracy | verdict -->reproduced<!-- /results -->
import { EXPERIMENTS } from "./registry.ts";
import { formatCell, renderTable, type ResultsByPlace } from "./render.ts";
import type { Cell, Result } from "./results/result.ts";
import { nameRows } from "./results/row_names.ts";

/** The parts between markers, with what the markers say. */
export const FRAGMENT = /(<!-- results:\s+([^>]+?)\s+-->)([\s\S]*?)(<!-- \/results -->)/g;

/**
 * Fills in a page's fragments.
 *
 * @param name of the page, for errors
 * @throws {RangeError} for a fragment that names no result, row or column
 */
export function fillFragments(name: string, page: string, byPlace: ResultsByPlace): string {
  return page.replace(FRAGMENT, (_, open: string, key: string, _old: string, close: string) => {
    if (key === "headline") return `${open}\n\n${renderHeadline(byPlace)}\n\n${close}`;
    return `${open}${findValue(`${name}: fragment "${key}"`, key.split(/\s*\|\s*/), byPlace)}${close}`;
  });
}

/** A cell to three digits, or a part of a verdict. */
function findValue(what: string, [source, row, column]: readonly string[], byPlace: ResultsByPlace): string {
  const [, place, id] = /^(.*)\/(.*)$/.exec(source) ?? [];
  const result = byPlace.get(place)?.get(id);
  if (!result) throw new RangeError(`${what}: no result ${source}, must be <device>/<id> or <device>/<model>/<id>`);
  if (row === "verdict") return result.verdict.status;
  if (row === "measured") return formatCell(shorten(result.verdict.measured));
  const cells = nameRows(result).get(row);
  if (!cells) throw new RangeError(`${what}: row is ${row}, must be one of ${[...nameRows(result).keys()].join(", ")}`);
  const value = cells[column] ?? null;
  if (value === null) throw new RangeError(`${what}: column is ${column}, must be one with a value in ${row}`);
  return formatCell(shorten(value));
}

function shorten(value: Cell): Cell {
  return typeof value === "number" ? Number(value.toPrecision(3)) : value;
}

/**
 * One row a claim: the paper's value and what was measured, with links: timings of each GPU, all else once. What was
 * measured on a model that isn't the embedded one stands first.
 */
function renderHeadline(byPlace: ResultsByPlace): string {
  const rows = EXPERIMENTS.filter(({ isOurs }) => !isOurs).map(({ id, claim, differs, needsGpu }) => {
    const all = Array.from(byPlace, ([place, results]) => ({ place, result: results.get(id) }));
    const found = [true, false].flatMap((ofModel) =>
      findMeasured(all.filter(({ place }) => place.includes("/") === ofModel), needsGpu)
    );
    const judged = found.filter(({ result }) => result.verdict.status !== "not measured");
    const best = judged.length > 0 ? judged : found;
    const text = claim.replace(/\.$/, "");
    if (best.length === 0) return [text, null, null, null, differs, "not measured yet"];
    const { paper, unit } = best[0].result.verdict;
    const measured = best.flatMap(({ place, result: { verdict } }) =>
      verdict.measured === null ? [] : [`${formatCell(shorten(verdict.measured))} (${place})`]
    );
    const verdicts = best.map(({ place, result: { verdict } }) => `[${verdict.status}](results/${place}/${id}.md)`);
    return [
      text,
      formatCell(paper),
      measured.length > 0 ? measured.join("; ") : null,
      unit,
      differs,
      verdicts.join("; "),
    ];
  });
  return renderTable(["claim", "paper", "measured (device)", "quantity", "where definitions differ", "verdict"], rows);
}

interface PlacedResult {
  readonly place: string;
  readonly result: Result;
}

/** The results that have a measured value, or the first of them alone, else the first; none where there are none. */
function findMeasured(
  all: readonly { readonly place: string; readonly result: Result | undefined }[],
  ofEach: boolean,
): PlacedResult[] {
  const found = all.flatMap(({ place, result }) => result ? [{ place, result }] : []);
  const measured = found.filter(({ result }) => result.verdict.status !== "not measured");
  return measured.length === 0 ? found.slice(0, 1) : ofEach ? measured : measured.slice(0, 1);
}
