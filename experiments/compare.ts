/**
 * Comparing two sets of results, cell by cell.
 *
 * @module
 */
import type { Cell, Column, Result } from "./result.ts";
import { nameRows } from "./row_names.ts";

/** A difference between two sets of results. */
export interface Difference {
  readonly id: string;
  /** Where: a row's first cells, or empty for what concerns the whole experiment. */
  readonly row: string;
  readonly column: string;
  readonly a: Cell;
  readonly b: Cell;
  /** Relative difference of numbers; null where one isn't a number. */
  readonly relative: number | null;
  /** Whether it counts: beyond the tolerance, or something is missing. Clock readings never count. */
  readonly counts: boolean;
}

/** Compares results by id. A missing experiment, row or column is a difference. */
export function compareResults(
  a: ReadonlyMap<string, Result>,
  b: ReadonlyMap<string, Result>,
  tolerance: number,
): Difference[] {
  const ids = [...new Set([...a.keys(), ...b.keys()])].sort();
  return ids.flatMap((id) => {
    const left = a.get(id);
    const right = b.get(id);
    if (!left || !right) return [missing(id, "", "experiment", left !== undefined)];
    return compareTables(left, right, tolerance);
  });
}

function missing(id: string, row: string, column: string, inA: boolean): Difference {
  const [here, there] = ["present", "missing"];
  return { id, row, column, a: inA ? here : there, b: inA ? there : here, relative: null, counts: true };
}

function compareTables(a: Result, b: Result, tolerance: number): Difference[] {
  const differences: Difference[] = [];
  const keys = new Map<string, Column>([...a.columns, ...b.columns].map((column) => [column.key, column]));
  for (const [key, column] of [...keys]) {
    const inA = a.columns.some((column) => column.key === key);
    if (inA && b.columns.some((column) => column.key === key)) continue;
    keys.delete(key);
    differences.push(missing(a.id, "", column.key, inA));
  }
  const rowsA = nameRows(a);
  const rowsB = nameRows(b);
  for (const name of new Set([...rowsA.keys(), ...rowsB.keys()])) {
    const rowA = rowsA.get(name);
    const rowB = rowsB.get(name);
    if (!rowA || !rowB) {
      differences.push(missing(a.id, name, "row", rowA !== undefined));
      continue;
    }
    for (const { key, timed } of keys.values()) {
      const found = compareCells(rowA[key] ?? null, rowB[key] ?? null);
      if (found === 0) continue;
      const counts = timed !== true && (found === null || found > tolerance);
      differences.push({
        id: a.id,
        row: name,
        column: key,
        a: rowA[key] ?? null,
        b: rowB[key] ?? null,
        relative: found,
        counts,
      });
    }
  }
  return differences;
}

/** 0 where equal, the relative difference of two numbers, null where they cannot be compared. */
function compareCells(a: Cell, b: Cell): number | null {
  if (a === b) return 0;
  if (typeof a !== "number" || typeof b !== "number") return null;
  return Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b));
}
