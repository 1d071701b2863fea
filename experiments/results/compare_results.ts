// Comparing two sets of results, cell by cell, and saying which differences are noise.
import type { Cell, Column, Result, Row } from "./result.ts";
import { assignSamples, nameRows } from "./row_names.ts";

/**
 * What a difference is.
 *
 * - `missing`: an experiment, row or column is on one side only
 * - `drift`: a cell that must repeat exactly differs beyond the tolerance
 * - `drift within errors`: so it does, but by less than the standard errors of both cells together
 * - `tolerated`: it differs within the tolerance
 * - `change`: a clock reading differs by more than its row's samples scatter
 * - `noise`: a clock reading differs by less
 * - `unjudged`: a clock reading differs, and there are no samples to judge it by
 */
export type DifferenceKind =
  | "missing"
  | "drift"
  | "drift within errors"
  | "tolerated"
  | "change"
  | "noise"
  | "unjudged";

export interface Difference {
  readonly id: string;
  /** Where: a row's texts, or empty for what concerns the whole experiment. */
  readonly row: string;
  readonly column: string;
  readonly a: Cell;
  readonly b: Cell;
  /** Relative difference of numbers; null where one isn't a number. */
  readonly relative: number | null;
  readonly kind: DifferenceKind;
}

/** Whether a difference means that results didn't repeat. */
export function counts({ kind }: Difference): boolean {
  return kind === "missing" || kind === "drift" || kind === "drift within errors";
}

/** Compares results by id. A missing experiment, row or column is a difference, and so is another verdict. */
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
    return [...compareVerdicts(id, left, right), ...compareTables(id, left, right, tolerance)];
  });
}

/** Why two results of an experiment aren't about the same thing, or undefined where they are. */
export function incomparable(a: Result, b: Result): string | undefined {
  if (a.environment.model.sha256 !== b.environment.model.sha256) return "another model";
  if (a.environment.seed !== b.environment.seed) return "another seed";
  const names = new Set([...Object.keys(a.settings), ...Object.keys(b.settings)]);
  const other = [...names].filter((name) => a.settings[name] !== b.settings[name]);
  return other.length > 0 ? `other settings: ${other.join(", ")}` : undefined;
}

function missing(id: string, row: string, column: string, inA: boolean): Difference {
  const [here, there] = ["present", "missing"];
  return { id, row, column, a: inA ? here : there, b: inA ? there : here, relative: null, kind: "missing" };
}

function compareVerdicts(id: string, a: Result, b: Result): Difference[] {
  if (a.verdict.status === b.verdict.status) return [];
  const timed = a.columns.some(({ timed }) => timed);
  return [{
    id,
    row: "",
    column: "verdict",
    a: a.verdict.status,
    b: b.verdict.status,
    relative: null,
    kind: timed ? "change" : "drift",
  }];
}

function compareTables(id: string, a: Result, b: Result, tolerance: number): Difference[] {
  const differences: Difference[] = [];
  const columns = new Map<string, Column>([...a.columns, ...b.columns].map((column) => [column.key, column]));
  for (const key of [...columns.keys()]) {
    const inA = a.columns.some((column) => column.key === key);
    if (inA && b.columns.some((column) => column.key === key)) continue;
    columns.delete(key);
    differences.push(missing(id, "", key, inA));
  }
  const [rowsA, rowsB] = [nameRows(a), nameRows(b)];
  const [scatterA, scatterB] = [scatterOf(a), scatterOf(b)];
  for (const name of new Set([...rowsA.keys(), ...rowsB.keys()])) {
    const [rowA, rowB] = [rowsA.get(name), rowsB.get(name)];
    if (!rowA || !rowB) {
      differences.push(missing(id, name, "row", rowA !== undefined));
      continue;
    }
    const scatter = sum(scatterA.get(rowA), scatterB.get(rowB));
    for (const column of columns.values()) {
      const [cellA, cellB] = [rowA[column.key] ?? null, rowB[column.key] ?? null];
      if (cellA === cellB) continue;
      const relative = relativeDifference(cellA, cellB);
      const kind = column.timed
        ? judgeReading(relative, scatter)
        : judgeCell(column.key, rowA, rowB, relative, tolerance);
      differences.push({ id, row: name, column: column.key, a: cellA, b: cellB, relative, kind });
    }
  }
  return differences;
}

/** Relative difference of two numbers, null where they cannot be compared. */
function relativeDifference(a: Cell, b: Cell): number | null {
  if (typeof a !== "number" || typeof b !== "number") return null;
  return Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b));
}

function judgeCell(key: string, a: Row, b: Row, relative: number | null, tolerance: number): DifferenceKind {
  if (relative === null) return "drift";
  if (relative <= tolerance) return "tolerated";
  const errors = [a, b].map((row) => row[`${key}_error`]).filter((error) => typeof error === "number");
  const within = errors.length === 2 && Math.abs(Number(a[key]) - Number(b[key])) <= Math.hypot(...errors);
  return within ? "drift within errors" : "drift";
}

function judgeReading(relative: number | null, scatter: number | undefined): DifferenceKind {
  if (relative === null) return "change";
  if (scatter === undefined) return "unjudged";
  return relative <= scatter ? "noise" : "change";
}

/**
 * How far each row's samples reach from their middle, relative to it: readings whose samples overlap differ by less
 * than both reaches together. A speed-up is judged by its own row's.
 */
function scatterOf(result: Result): Map<Row, number> {
  const scatter = new Map<Row, number>();
  for (const [row, samples] of assignSamples(result).ofRows) {
    const values = samples.flatMap(({ values }) => values);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    scatter.set(row, (high - low) / (high + low));
  }
  return scatter;
}

function sum(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a + b;
}
