// Names of rows, by which two results' rows and a row's samples are found.
import { median } from "../../model/host/statistics.ts";
import type { Result, Row } from "./result.ts";

/** Rows by their text cells that no clock was read for, numbered where these repeat. */
export function nameRows(result: Result): Map<string, Row> {
  const named = new Map<string, Row>();
  for (const row of result.rows) {
    const base = textsOf(result, row).join(" ");
    let name = base;
    for (let i = 2; named.has(name); i++) name = `${base} #${i}`;
    named.set(name, row);
  }
  return named;
}

export interface Samples {
  readonly name: string;
  readonly values: readonly number[];
}

/** Samples of each row, and those that belong to no row. */
export function assignSamples(
  result: Result,
): { readonly ofRows: ReadonlyMap<Row, Samples[]>; readonly others: Samples[] } {
  const ofRows = new Map<Row, Samples[]>();
  const others: Samples[] = [];
  for (const [name, values] of Object.entries(result.samples ?? {})) {
    const rows = rowsOfSamples(result, name.split(": ")[0], values);
    for (const row of rows) ofRows.set(row, [...ofRows.get(row) ?? [], { name, values }]);
    if (rows.length === 0) others.push({ name, values });
  }
  return { ofRows, others };
}

/** Rows with this name; where several answer to it, those that state the samples' median. */
function rowsOfSamples({ rows, columns }: Result, name: string, values: readonly number[]): Row[] {
  const cellsOf = (row: Row) =>
    columns.map(({ key }) => row[key]).filter((cell) => cell !== null && cell !== undefined);
  const named = rows.filter((row) => isNamed(cellsOf(row).map(String), name));
  if (named.length < 2) return named;
  const middle = Number(median(values).toPrecision(7)); // as result files have it
  return named.filter((row) => cellsOf(row).includes(middle));
}

/** Whether a name consists of some of these cells in their order. */
function isNamed(cells: readonly string[], name: string): boolean {
  let rest = name;
  for (const cell of cells) {
    if (rest === cell) return true;
    if (rest.startsWith(`${cell} `)) rest = rest.slice(cell.length + 1);
  }
  return false;
}

function textsOf({ columns }: Result, row: Row): string[] {
  // What a clock makes of a row, such as a note about noise, is another text each time.
  return columns.filter(({ timed }) => !timed).map(({ key }) => row[key]).filter((cell) => typeof cell === "string");
}
