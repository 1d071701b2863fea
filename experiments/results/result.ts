// Result files: what an experiment found, as `results/<device>/<id>.json`. The JSON is the truth; Markdown and plots
// are rendered from it.
import { join } from "@std/path";
import { writeTextBeside } from "../../model/host/atomic_file.ts";
import type { Estimate } from "../../model/host/statistics.ts";
import { parseJson } from "./parse_json.ts";
import { PEERS_ID, peersProblem } from "./peers.ts";

/** A column of a result table. */
export interface Column {
  readonly key: string;
  readonly label: string;
  /** Unit of the numbers; empty for text and plain counts. */
  readonly unit: string;
  /** Whether values are clock readings, which differ from run to run; all others repeat exactly on the same machine. */
  readonly timed?: boolean;
}

/** One cell: a number, a text, or null where nothing was measured. */
export type Cell = number | string | null;

/** A row of a result table, by column key. */
export type Row = Readonly<Record<string, Cell>>;

/** A column of values and, behind it, that of their errors, which is like it but for what is said. */
export function estimateColumns(column: Column, error: Partial<Column> = {}): Column[] {
  return [column, { ...column, key: `${column.key}_error`, label: "±", ...error }];
}

/** Cells of {@linkcode estimateColumns}, empty where nothing was measured. */
export function estimateCells(key: string, estimate: Estimate | undefined): Row {
  return { [key]: estimate?.value ?? null, [`${key}_error`]: estimate?.standardError ?? null };
}

/** The value of such cells; its error is 0 where that of a single reading isn't known. */
export function estimateOf(row: Row, key: string): Estimate {
  return { value: Number(row[key]), standardError: Number(row[`${key}_error`] ?? 0) };
}

/** How far a claim held. */
export const STATUSES = ["reproduced", "partly", "not reproduced", "not measured"] as const;

/** A claim of the paper against what was measured. */
export interface Verdict {
  /** The paper's number or statement. */
  readonly paper: number | string;
  /** Ours, in the same terms. */
  readonly measured: number | string | null;
  readonly unit: string;
  readonly status: typeof STATUSES[number];
  /** How the status was decided. */
  readonly note: string;
}

/** What an experiment returns. */
export interface Findings {
  /** Sizes, seeds, texts: what a reader needs to judge or repeat the numbers. */
  readonly settings: Readonly<Record<string, Cell>>;
  readonly columns: readonly Column[];
  readonly rows: readonly Row[];
  /**
   * Raw samples, by name. A row's are named by some of its cells in their order, then `: ` and what they are where
   * there is more to say (`twobit: nats a token, by window`); others belong to the whole table.
   */
  readonly samples?: Readonly<Record<string, readonly number[]>>;
  readonly verdict: Verdict;
}

/** Where and how the findings were made. */
export interface Provenance {
  readonly device: { readonly name: string; readonly adapter: string; readonly software: boolean };
  readonly environment: {
    readonly deno: string;
    /** The WebGPU, where it is not Deno's own. */
    readonly webgpu?: string;
    readonly commit: string;
    /** Whether the working tree differed from the commit. */
    readonly dirty: boolean;
    readonly model: { readonly name: string; readonly sha256: string };
    readonly seed: number;
    readonly command: string;
    readonly startedAt: string;
  };
}

export interface Result extends Findings, Provenance {
  readonly schema: 1;
  readonly id: string;
  readonly title: string;
  readonly claim: string;
}

/** Writes `<directory>/<id>.json`, whole or not at all. Numbers are rounded to 7 significant digits. */
export async function writeResult(directory: string, result: Result): Promise<string> {
  const path = join(directory, `${result.id}.json`);
  const round = (_key: string, value: unknown) =>
    typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value;
  assertFinite(result);
  await writeTextBeside(path, JSON.stringify(result, round, 1) + "\n");
  return path;
}

function assertFinite({ id, rows, verdict }: Result): void {
  if (typeof verdict.measured === "number" && !Number.isFinite(verdict.measured)) {
    throw new RangeError(`${id}: measured is ${verdict.measured}, must be finite`);
  }
  for (const [index, row] of rows.entries()) {
    for (const [key, value] of Object.entries(row)) {
      if (typeof value === "number" && !Number.isFinite(value)) {
        throw new RangeError(`${id}: row ${index} has ${key} ${value}, must be finite`);
      }
    }
  }
}

/** Reads a result file. @throws {SyntaxError} when it isn't one */
export async function readResult(path: string): Promise<Result> {
  return parseResult(path, await Deno.readTextFile(path));
}

/** Reads a result file's text. @param name of the file, for errors. @throws {SyntaxError} when it isn't a result */
export function parseResult(name: string, text: string): Result {
  const value = parseJson<Partial<Result>>(name, text);
  const problem = value?.schema !== 1
    ? `schema is ${JSON.stringify(value?.schema)}, must be 1`
    : typeof value.id !== "string" || !Array.isArray(value.columns) || !Array.isArray(value.rows)
    ? "id, columns or rows are missing"
    : !STATUSES.some((status) => status === value.verdict?.status)
    ? `verdict status is ${JSON.stringify(value.verdict?.status)}, must be one of ${STATUSES.join(", ")}`
    : value.id === PEERS_ID
    ? peersProblem(value as Result)
    : undefined;
  if (problem) throw new SyntaxError(`${name}: ${problem}`);
  return value as Result;
}

/** Reads all result files of a directory, by id, in alphabetical order. @throws {SyntaxError} */
export async function readResults(directory: string): Promise<Map<string, Result>> {
  const names: string[] = [];
  // Others have two dots: what runs keep beside their results.
  for await (const { name, isFile } of Deno.readDir(directory)) {
    if (isFile && /^[^.]+\.json$/.test(name)) names.push(name);
  }
  const results = new Map<string, Result>();
  for (const name of names.sort()) {
    const result = await readResult(join(directory, name));
    results.set(result.id, result);
  }
  return results;
}
