/**
 * Names of rows, by which two results' rows and a row's samples are found.
 *
 * @module
 */
import type { Result, Row } from "./result.ts";

/** Rows by their text cells, numbered where these repeat. */
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

/** Raw samples of one name. */
export interface Samples {
  /** As in the result file. */
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
    // Where several rows answer to the name, the last one's samples have overwritten the others'.
    const row = result.rows.findLast((row) => isNamed(textsOf(result, row), name.split(": ")[0]));
    if (!row) others.push({ name, values });
    else ofRows.set(row, [...ofRows.get(row) ?? [], { name, values }]);
  }
  return { ofRows, others };
}

function textsOf({ columns }: Result, row: Row): string[] {
  return columns.map(({ key }) => row[key]).filter((cell) => typeof cell === "string");
}

/** Whether a name consists of some of these texts in their order. */
function isNamed(texts: readonly string[], name: string): boolean {
  let rest = name;
  for (const text of texts) {
    if (rest === text) return true;
    if (rest.startsWith(`${text} `)) rest = rest.slice(text.length + 1);
  }
  return false;
}
