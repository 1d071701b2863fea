// Rows of an experiment that are finished, in a file beside its result until that is there, so that an interrupted run
// can go on with `--resume`.
import type { Evaluation } from "../model/evaluate/evaluation.ts";
import { writeTextBeside } from "../model/host/atomic_file.ts";
import { undefinedIfMissing } from "../model/host/path_exists.ts";
import { parseJson } from "./results/parse_json.ts";
import type { Cell } from "./results/result.ts";

export interface Measured {
  /** Bits of a weight in the linear layers, everything counted. */
  readonly bitsPerWeight: number;
  readonly evaluation: Evaluation;
}

export interface FinishedRows {
  /** What was measured before under this name with these quantizers. */
  find(name: string, quantizers: string): Measured | undefined;
  add(name: string, quantizers: string, measured: Measured): Promise<void>;
}

export const UNKEPT_ROWS: FinishedRows = { find: () => undefined, add: () => Promise.resolve() };

/** All that decides every row, but for its quantizers. */
export type RowsState = Readonly<Record<string, Cell | boolean>>;

interface RowsFile {
  readonly schema: 1;
  readonly state: RowsState;
  readonly rows: { readonly name: string; readonly quantizers: string; readonly measured: Measured }[];
}

/** Path of the rows of an experiment whose result comes into a directory. */
export function rowsPath(directory: string, id: string): string {
  return `${directory}/${id}.rows`;
}

/**
 * Opens the rows of an experiment.
 *
 * @param resume whether to go on with those that an interrupted run left; else, and where none did, it begins without any
 * @throws {RangeError} when those were made with other settings, naming the first that differs
 * @throws {SyntaxError} when the file is no file of rows
 */
export async function openFinishedRows(path: string, state: RowsState, resume: boolean): Promise<FinishedRows> {
  const found = resume ? await readRows(path) : undefined;
  const differs = found && Object.keys({ ...found.state, ...state }).find((key) => found.state[key] !== state[key]);
  if (found && differs) {
    const [was, is] = [found.state, state].map((settings) => JSON.stringify(settings[differs]) ?? "missing");
    throw new RangeError(
      `${path} holds rows of other settings, ${differs} was ${was}, is ${is}, must be run with those or without --resume`,
    );
  }
  const file: RowsFile = { schema: 1, state, rows: found?.rows ?? [] };
  return {
    find: (name, quantizers) => file.rows.find((row) => row.name === name && row.quantizers === quantizers)?.measured,
    async add(name, quantizers, measured) {
      file.rows.push({ name, quantizers, measured });
      await writeTextBeside(path, JSON.stringify(file, writeValue));
    },
  };
}

async function readRows(path: string): Promise<RowsFile | undefined> {
  const text = await Deno.readTextFile(path).catch(undefinedIfMissing);
  if (text === undefined) return undefined;
  const file = parseJson<RowsFile | null>(path, text, readValue);
  if (file?.schema === 1 && Array.isArray(file.rows) && typeof file.state === "object") return file;
  throw new SyntaxError(`${path} is no file of finished rows, must be removed`);
}

/** What JSON has no form for: arrays of numbers by their type, and numbers that aren't finite by their name. */
function writeValue(_key: string, value: unknown): unknown {
  if (value instanceof Float64Array) return { f64: Array.from(value) };
  if (value instanceof Uint8Array) return { u8: Array.from(value) };
  return typeof value === "number" && !Number.isFinite(value) ? { number: String(value) } : value;
}

function readValue(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Object.keys(value).length !== 1) return value;
  const { f64, u8, number } = value as { f64?: number[]; u8?: number[]; number?: string };
  if (Array.isArray(f64)) return Float64Array.from(f64);
  if (Array.isArray(u8)) return Uint8Array.from(u8);
  return typeof number === "string" ? Number(number) : value;
}
