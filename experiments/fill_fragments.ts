/**
 * Numbers in hand-written pages: every one is filled in from a result file.
 *
 *     <!-- results: headline -->  the table of claims  <!-- /results -->
 *     <!-- results: software/accuracy | twobit | perplexity_ratio -->1.06<!-- /results -->
 *     <!-- results: software/accuracy | verdict -->reproduced<!-- /results -->
 *
 * @module
 */
import { EXPERIMENTS } from "./registry.ts";
import { formatCell, renderTable } from "./render.ts";
import type { Cell, Result } from "./results/result.ts";
import { nameRows } from "./results/row_names.ts";

/** Results by device, then by experiment. */
type ResultsByDevice = ReadonlyMap<string, ReadonlyMap<string, Result>>;

/** The parts between markers, with what the markers say. */
export const FRAGMENT = /(<!-- results:\s+([^>]+?)\s+-->)([\s\S]*?)(<!-- \/results -->)/g;

/**
 * Fills in a page's fragments.
 *
 * @param name of the page, for errors
 * @throws {RangeError} for a fragment that names no result, row or column
 */
export function fillFragments(name: string, page: string, byDevice: ResultsByDevice): string {
  return page.replace(FRAGMENT, (_, open: string, key: string, _old: string, close: string) => {
    if (key === "headline") return `${open}\n\n${renderHeadline(byDevice)}\n\n${close}`;
    return `${open}${findValue(`${name}: fragment "${key}"`, key.split(/\s*\|\s*/), byDevice)}${close}`;
  });
}

/** A cell to three digits, or a part of a verdict. */
function findValue(what: string, [source, row, column]: readonly string[], byDevice: ResultsByDevice): string {
  const [device, id] = source.split("/");
  const result = byDevice.get(device)?.get(id);
  if (!result) throw new RangeError(`${what}: no result ${source}, must be <device>/<id>`);
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

/** One row a claim: the paper's value and the best that was measured, with links. */
function renderHeadline(byDevice: ResultsByDevice): string {
  const rows = EXPERIMENTS.map(({ id, claim }) => {
    const all = Array.from(byDevice, ([device, results]) => ({ device, result: results.get(id) }));
    const found = all.filter(({ result }) => result);
    const measured = found.find(({ result }) => result?.verdict.status !== "not measured") ?? found[0];
    const text = claim.replace(/\.$/, "");
    if (!measured?.result) return [text, null, null, null, "not measured yet"];
    const { device, result: { verdict } } = measured;
    return [
      text,
      formatCell(verdict.paper),
      verdict.measured === null ? null : `${formatCell(shorten(verdict.measured))} (${device})`,
      verdict.unit,
      `[${verdict.status}](results/${device}/${id}.md)`,
    ];
  });
  const labels = ["claim", "paper", "measured (device)", "unit", "verdict"];
  return renderTable(labels.map((label) => ({ key: label, label, unit: "" })), rows);
}
