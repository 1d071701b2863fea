// A result's table as HTML: sortable, each row with its raw samples.
import { escapeText } from "../results/escape_text.ts";
import { formatCell } from "../render.ts";
import type { Cell, Column, Result, Row } from "../results/result.ts";
import { assignSamples, type Samples } from "../results/row_names.ts";

/** A column with the one beside it that holds its standard errors. */
interface Shown extends Column {
  readonly errorKey?: string;
  readonly numeric: boolean;
}

/** The table. Columns without any value are left out, standard errors stand beside their values. */
export function resultTable(result: Result): string {
  const { ofRows, others } = assignSamples(result);
  const columns = shownColumns(result);
  const samplesHeader = ofRows.size > 0 ? "<th>raw</th>" : "";
  const body = result.rows.map((row) => {
    const samples = ofRows.get(row);
    const samplesCell = ofRows.size === 0 ? "" : `<td>${samples ? samplesDetails(samples) : "-"}</td>`;
    return `<tr>${columns.map((column) => cell(column, row)).join("")}${samplesCell}</tr>`;
  });
  return [
    '<div class="wide"><table class="sortable"><thead><tr>',
    ...columns.map(header),
    samplesHeader,
    "</tr></thead><tbody>",
    ...body,
    "</tbody></table></div>",
    ...(others.length > 0 ? [`<p>Raw data of the whole table: ${samplesDetails(others)}</p>`] : []),
  ].join("\n");
}

function shownColumns({ columns, rows }: Result): Shown[] {
  const filled = columns.filter(({ key }) => rows.some((row) => (row[key] ?? null) !== null));
  const keys = new Set(filled.map(({ key }) => key));
  const isError = (key: string) => key.endsWith("_error") && keys.has(key.slice(0, -"_error".length));
  return filled.filter(({ key }) => !isError(key)).map((column) => ({
    ...column,
    numeric: rows.every((row) => typeof row[column.key] !== "string"),
    ...(keys.has(`${column.key}_error`) && { errorKey: `${column.key}_error` }),
  }));
}

function header({ label, unit, numeric, errorKey }: Shown): string {
  const text = `${label}${errorKey ? " ± standard error" : ""}`;
  const small = unit ? ` <small>${escapeText(unit)}</small>` : "";
  return `<th${numeric ? ' class="number"' : ""}><button type="button">${escapeText(text)}${small}</button></th>`;
}

function cell({ key, errorKey, numeric }: Shown, row: Row): string {
  const value: Cell = row[key] ?? null;
  if (!numeric) return `<td>${escapeText(formatCell(value))}</td>`;
  const error = errorKey ? row[errorKey] ?? null : null;
  const errorText = error === null ? "" : ` <small>± ${escapeText(formatCell(shorten(error)))}</small>`;
  const attributes = value === null ? "" : ` data-value="${value}" title="${value}"`;
  return `<td class="number"${attributes}>${escapeText(formatCell(value))}${errorText}</td>`;
}

/** Two digits of an error say all that it can. */
function shorten(error: Cell): Cell {
  return typeof error === "number" ? Number(error.toPrecision(2)) : error;
}

function samplesDetails(samples: readonly Samples[]): string {
  const count = samples.reduce((sum, { values }) => sum + values.length, 0);
  const lists = samples.map(({ name, values }) => `<p><b>${escapeText(name)}</b><br>${values.join(" ")}</p>`);
  return `<details class="samples"><summary>${count} values</summary>${lists.join("")}</details>`;
}
