// What a command is: options as data, so that help, parsing and errors are the same everywhere.
import { parseArgs } from "@std/cli/parse-args";
import { withoutDirectories } from "../experiments/provenance.ts";
import { openDawn } from "../model/host/dawn.ts";
import { CHOICE_TASKS } from "../model/evaluate/questions.ts";
import { MODEL_SHAPES, type ModelShape } from "../model/llama/shapes.ts";
import type { TaskFile } from "../model/evaluate/tasks.ts";
import { CALIBRATION_GRAMMAR, splitCalibration } from "../model/text/calibration_names.ts";
import { EVALUATION_TEXTS, isEvaluationText } from "../model/text/text.ts";

export interface Option {
  /** What its value stands for, shown in the help as in `--out DIR`; without it the option has none. */
  readonly value?: string;
  readonly help: string;
}

/** Values of options as given; absent options are undefined. */
export type OptionValues = Readonly<Record<string, string | boolean | undefined>>;

/** Interrupts (SIGINT, SIGTERM), which end the process until a command says that it ends by itself. */
export interface Interrupt {
  /** Aborted at the first interrupt after {@linkcode begin}; the second ends the process. */
  readonly signal: AbortSignal;
  /** Called where the command ends by itself, and soon, once `signal` is aborted. */
  begin(): void;
}

/** A command of the suite, run as `deno task <name>`. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /** Names of positional arguments, as shown in the help; none by default. */
  readonly positionals?: readonly string[];
  readonly options: Readonly<Record<string, Option>>;
  /** Does the work; returns the exit code. */
  run(options: OptionValues, positionals: readonly string[], interrupt: Interrupt): Promise<number>;
}

/** Bad usage: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

const HELP_OPTION: Command["options"] = { help: { help: "Print this help." } };

/** Parses arguments. @throws {UsageError} for unknown options and a wrong number of positionals */
export function parseArguments(command: Command, args: readonly string[]) {
  const options: Command["options"] = { ...command.options, ...HELP_OPTION };
  const [string, boolean] = [true, false].map((hasValue) =>
    Object.keys(options).filter((name) => (options[name].value !== undefined) === hasValue)
  );
  const joined = joinOptions(new Map(Object.entries(options)), args);
  const { _: positionals, ...parsed } = parseArgs([...joined], { boolean, string: ["_", ...string] });
  const given = Object.entries(parsed).filter(([, value]) => value !== false);
  const values = Object.fromEntries(given) as OptionValues;
  const { positionals: wanted = [] } = command;
  if (values.help !== true && positionals.length !== wanted.length) {
    throw new UsageError(`${positionals.length} arguments given, must be ${wanted.join(" ") || "none"}`);
  }
  return { values, positionals };
}

/** The arguments with each option as one, `--name=value`, so that the parser, which is lenient, has nothing to guess. */
function* joinOptions(options: ReadonlyMap<string, Option>, args: readonly string[]): Generator<string> {
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === "--") return yield* [arg, ...rest];
    const [, letters, name, value] = /^-(?:([^-].*)|-(.[^=]*)(?:=(.*))?)$/s.exec(arg) ?? [];
    if (letters !== undefined) {
      const other = Array.from(letters).find((letter) => letter !== "h");
      if (other !== undefined) throw new UsageError(`Unknown option '-${other}'`);
      yield "--help=true";
    } else yield name === undefined ? arg : `--${name}=${optionValue(options.get(name), name, value, rest)}`;
  }
}

/** The value of an option: its own, or the argument after it, which is then taken from `rest`. */
function optionValue(option: Option | undefined, name: string, own: string | undefined, rest: string[]): string {
  if (option === undefined) throw new UsageError(`Unknown option '--${name}'`);
  if (option.value === undefined) {
    if (own === undefined) return "true";
    throw new UsageError(`Option '${name === "help" ? "-h, " : ""}--${name}' does not take an argument`);
  }
  const value = own ?? rest.shift();
  if (value === undefined) throw new UsageError(`Option '--${name} <value>' argument missing`);
  if (own === undefined && /^-./s.test(value)) throw new UsageError(`Option '--${name}' argument is ambiguous`);
  return value;
}

export function helpOf({ name, summary, positionals = [], options }: Command): string {
  const entries = Object.entries({ ...options, ...HELP_OPTION }).map(([option, { value, help }]) =>
    [`--${option}${value ? ` ${value}` : ""}`, help] as const
  );
  const width = Math.max(...entries.map(([left]) => left.length));
  return [
    `Usage: deno task ${[name, ...positionals].join(" ")} [options]`,
    "",
    summary,
    "",
    "Options:",
    ...entries.map(([left, help]) => `  ${left.padEnd(width)}  ${help}`),
  ].join("\n");
}

/** Reads an option as a number. @throws {UsageError} */
export function numberOption(options: OptionValues, name: string, fallback: number, min: number, max: number): number {
  const value = options[name];
  if (value === undefined) return fallback;
  const number = Number(value);
  if (value === "" || !(number >= min && number <= max)) {
    throw new UsageError(`--${name} is ${value}, must be a number between ${min} and ${max}`);
  }
  return number;
}

/** Reads an option as a whole number. @throws {UsageError} */
export function integerOption(options: OptionValues, name: string, fallback: number, min: number, max: number): number {
  const number = numberOption(options, name, fallback, min, max);
  if (!Number.isInteger(number)) throw new UsageError(`--${name} is ${number}, must be a whole number`);
  return number;
}

export const TEXT_HELP =
  "Text: sotu (default), moby, wikitext2 (from the hub; wikitext2:FILE from wiki.test.raw) or file:PATH.";

export const MODEL_HELP = "the embedded one (default), a directory, a GGUF file, or ORG/NAME of the Hugging Face hub";

/** The option `model` of commands that take packed files too. */
export function modelOption(what: string): Option {
  return {
    value: "tiny|DIR|F.gguf|F.safetensors|hf:ORG/NAME[@REVISION]",
    help: `${what}: a packed file, ${MODEL_HELP}.`,
  };
}

/** Reads the name of an evaluation text. @throws {UsageError} */
export function evaluationTextOption(options: OptionValues): string {
  const name = textOption(options, "text", EVALUATION_TEXTS[0]);
  if (!isEvaluationText(name)) {
    throw new UsageError(
      `--text is ${name}, must be one of ${EVALUATION_TEXTS.join(", ")}, wikitext2:FILE or file:PATH`,
    );
  }
  return name;
}

/** Reads the name of a calibration text, where one is given. @throws {UsageError} */
export function calibrationTextOption(options: OptionValues): string | undefined {
  const name = textOption(options, "calibration", "");
  if (name === "") return undefined;
  try {
    splitCalibration(name);
  } catch {
    throw new UsageError(`--calibration is ${name}, must be ${CALIBRATION_GRAMMAR}`);
  }
  return name;
}

export const TASKS_OPTION: Option = {
  value: "NAME:FILE,...",
  help: `Also score multiple-choice questions as lm-evaluation-harness does; NAME: ${CHOICE_TASKS.join(", ")}; ` +
    "FILE: JSON lines in that data set's layout.",
};

/** Reads the option `tasks`: `NAME:FILE,NAME:FILE`. @throws {UsageError} */
export function taskFilesOption(options: OptionValues): TaskFile[] {
  const given = textOption(options, "tasks", "");
  return given === "" ? [] : given.split(",").map((part) => {
    const colon = part.indexOf(":");
    const name = CHOICE_TASKS.find((known) => known === part.slice(0, colon));
    if (!name || colon === part.length - 1) {
      throw new UsageError(`--tasks has ${part}, must be NAME:FILE with a NAME of ${CHOICE_TASKS.join(", ")}`);
    }
    return { name, path: part.slice(colon + 1) };
  });
}

export const WEBGPU_OPTION = {
  webgpu: { value: "deno|dawn", help: "WebGPU to run on; dawn is the npm package webgpu (default deno)." },
} as const satisfies Record<string, Option>;

/**
 * Makes the WebGPU that the option names the one of this process.
 *
 * @throws {UsageError}
 * @throws {Error} where Dawn is not installed
 */
export async function useWebGpu(options: OptionValues): Promise<void> {
  const name = oneOfOption(options, "webgpu", ["deno", "dawn"], "deno");
  if (name === "dawn") Object.defineProperty(navigator, "gpu", { value: await openDawn() });
}

/** Reads an option that names a published shape. @throws {UsageError} */
export function shapeOption(options: OptionValues, name: string, fallback: string): ModelShape {
  const wanted = textOption(options, name, fallback);
  const shape = MODEL_SHAPES.find((known) => known.name === wanted);
  if (shape) return shape;
  throw new UsageError(`--${name} is ${wanted}, must be one of ${MODEL_SHAPES.map(({ name }) => name).join(", ")}`);
}

export function textOption(options: OptionValues, name: string, fallback: string): string {
  const value = options[name];
  return typeof value === "string" ? value : fallback;
}

/** Reads an option that is one of some values. @throws {UsageError} */
export function oneOfOption<T extends string | number>(
  options: OptionValues,
  name: string,
  values: readonly T[],
  fallback: T,
): T {
  const wanted = textOption(options, name, String(fallback));
  const value = values.find((known) => String(known) === wanted);
  if (value === undefined) throw new UsageError(`--${name} is ${wanted}, must be one of ${values.join(", ")}`);
  return value;
}

/** A task with its options as they were given but for this machine's directories, for the result files. */
export function describeCall(task: string, options: OptionValues): string {
  const given = Object.entries(options).map(([name, value]) =>
    value === true ? `--${name}` : `--${name} ${withoutDirectories(String(value))}`
  );
  return ["deno task", task, ...given].join(" ");
}
