// Running experiments and writing their result files.
import { dirname, fromFileUrl, join, resolve } from "@std/path";
import { pathExists } from "../model/host/path_exists.ts";
import { createContext, once, type RunSettings } from "./context.ts";
import type { Experiment } from "./experiment.ts";
import { type FinishedRows, openFinishedRows, rowsPath, type RowsState } from "./finished_rows.ts";
import { describeDevice, describeEnvironment, describeFile, withoutDirectories } from "./provenance.ts";
import { renderDirectory, writePages } from "./render.ts";
import { type Findings, type Provenance, readResult, type Result, writeResult } from "./results/result.ts";

/** Directory of results that come with the repository. */
export const RESULTS_ROOT: string = fromFileUrl(new URL("../results", import.meta.url));

export interface RunOptions {
  readonly settings: RunSettings;
  /** Directory of the result files; by default {@linkcode resultPlace} below results/. */
  readonly out?: string;
  /** Whether to go on with the rows that an interrupted run finished. */
  readonly resume?: boolean;
  /** The command line, for the result files. */
  readonly command: string;
  /** Told of the experiment that runs, the share of it that is done and what is being done. */
  readonly onProgress?: (id: string, share: number, step: string) => void;
  readonly onRow?: (id: string, name: string) => void;
  readonly onResult?: (result: Result, path: string, timeMs: number) => void;
}

/**
 * Runs experiments one after the other; each result file is written as soon as it is there.
 * Whether the output directory can be written is tried before any work is done; it is made with the first result or row.
 */
export async function runExperiments(experiments: readonly Experiment[], options: RunOptions): Promise<Result[]> {
  const device = await describeDevice();
  const { quick, modelName } = options.settings;
  const directoryOf = (experiment: Pick<Experiment, "needsModel">) =>
    options.out ?? join(RESULTS_ROOT, resultPlace(quick ? "quick" : device.name, modelName, experiment));
  const directories = new Set(experiments.map(directoryOf));
  for (const directory of directories) await checkWritable(directory);
  let running = "";
  const settings = { ...options.settings, directory: directoryOf({ needsModel: true }) };
  using context = createContext(settings, (share, step) => options.onProgress?.(running, share, step));
  const opened = await context.opened();
  const model = { name: withoutDirectories(opened.name), sha256: opened.sha256 };
  // What a quick run leaves is nobody's evidence.
  if (options.out === undefined && modelName !== "tiny" && !quick) {
    for (const experiment of experiments) await refuseOtherModel(directoryOf(experiment), experiment, model);
  }
  const results: Result[] = [];
  for (const experiment of experiments) {
    const { id, title, claim } = experiment;
    running = id;
    const startMs = performance.now();
    const environment = await describeEnvironment(model, options.settings.seed, options.command);
    const directory = directoryOf(experiment);
    const path = rowsPath(directory, id);
    const finishedRows = once(async (given?: RowsState) => {
      const state = given ?? (await context.baseline()).state;
      await Deno.mkdir(directory, { recursive: true });
      const rows = await openFinishedRows(path, { experiment: id, ...state }, options.resume ?? false);
      const add: FinishedRows["add"] = async (name, quantizers, measured) => {
        await rows.add(name, quantizers, measured);
        options.onRow?.(id, name);
      };
      return { ...rows, add };
    });
    const found = await experiment.run({ ...context, finishedRows });
    const findings = withoutSoftwareTimings(experiment, found, device.software);
    const result: Result = { schema: 1, id, title, claim, device, environment, ...findings };
    await Deno.mkdir(directory, { recursive: true });
    const written = await writeResult(directory, result);
    await Deno.remove(path).catch(() => {}); // experiments without such rows have no file of them
    options.onResult?.(result, written, performance.now() - startMs);
    results.push(result);
  }
  for (const directory of directories) await writePages(await renderDirectory(directory));
  return results;
}

/**
 * Where below results/ a result belongs: the device's directory for the embedded model and for what measures no model,
 * one for each other model below it.
 */
export function resultPlace(device: string, modelName: string, { needsModel }: Pick<Experiment, "needsModel">): string {
  return needsModel && modelName !== "tiny" ? `${device}/${modelSlug(modelName)}` : device;
}

/**
 * Fails where a directory holds a result of another model: two files' names can lead to one {@linkcode resultPlace}.
 *
 * @throws {Error} naming both
 */
export async function refuseOtherModel(
  directory: string,
  { id, needsModel }: Pick<Experiment, "id" | "needsModel">,
  model: Provenance["environment"]["model"],
): Promise<void> {
  const path = join(directory, `${id}.json`);
  if (!needsModel || !await pathExists(path)) return;
  const before = (await readResult(path)).environment.model;
  if (before.sha256 === model.sha256) return;
  const [was, is] = [before, model].map(({ name, sha256 }) => describeFile(name, sha256));
  throw new Error(`${path} is of ${was}, the model is ${is}, must be written elsewhere (--out) or the old one removed`);
}

/** A model's name as a directory: the last part of its name, without revision, ending and type of its numbers. */
function modelSlug(name: string): string {
  const last = name.replace(/@[^/]*$/, "").replace(/\/+$/, "").split(/[/\\:]/).at(-1)!;
  const stem = last.replace(/\.(gguf|safetensors)$/, "").replace(/[.-](b?f\d+|i?q\d\w*)$/i, "");
  return stem.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "model";
}

/** A timing made on a software adapter is not evidence of GPU speed, and no verdict is. */
export function withoutSoftwareTimings(
  { needsGpu }: Pick<Experiment, "needsGpu">,
  findings: Findings,
  software: boolean,
): Findings {
  if (!needsGpu || !software) return findings;
  const note = "Runs, but on a software adapter, whose timings mean nothing.";
  return { ...findings, verdict: { ...findings.verdict, measured: null, status: "not measured", note } };
}

/** Tries to write where the directory is or will be made. @throws {Error} naming the directory */
async function checkWritable(directory: string): Promise<void> {
  let place = resolve(directory);
  try {
    while (!await pathExists(place)) place = dirname(place);
    const probe = join(place, `.writable-${Deno.pid}`);
    await Deno.writeTextFile(probe, "");
    await Deno.remove(probe);
  } catch (cause) {
    throw new Error(`cannot write to ${directory}: ${(cause as Error).message}`, { cause });
  }
}
