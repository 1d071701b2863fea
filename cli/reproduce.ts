// `deno task reproduce`: all experiments, or some of them.
import { dirname, join } from "@std/path";
import { pathExists } from "../model/host/path_exists.ts";
import { EXPERIMENTS, findExperiments, runOrder } from "../experiments/registry.ts";
import { renderResult } from "../experiments/render.ts";
import { PEERS_ID, peersBeside } from "../experiments/results/peers.ts";
import { readResult, type Result } from "../experiments/results/result.ts";
import { runExperiments } from "../experiments/run.ts";
import { type Command, describeCall, type OptionValues, UsageError } from "./command.ts";
import { checkQuantized } from "./packed_option.ts";
import { createProgressLine, formatSeconds, type ProgressLine } from "./progress.ts";
import { readRunSettings, RUN_OPTIONS } from "./run_options.ts";

export const reproduce: Command = {
  name: "reproduce",
  summary: "Runs every experiment and writes a table for each claim of the paper.",
  options: {
    only: { value: "ID,ID", help: `Run only these of ${EXPERIMENTS.map(({ id }) => id).join(", ")}.` },
    ...RUN_OPTIONS,
  },
  run: (options) => {
    const all = runOrder(options.quick === true).map(({ id }) => id);
    return runAndPrint(typeof options.only === "string" ? options.only.split(",") : all, options, "reproduce");
  },
};

export const experiment: Command = {
  name: "experiment",
  summary: `Runs one experiment and prints its table. ID is one of ${EXPERIMENTS.map(({ id }) => id).join(", ")}.`,
  positionals: ["ID"],
  options: RUN_OPTIONS,
  run: (options, [id]) => runAndPrint([id], options, `experiment ${id}`),
};

async function runAndPrint(ids: readonly string[], options: OptionValues, task: string): Promise<number> {
  let experiments;
  try {
    experiments = findExperiments(ids);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (options.out === "") throw new UsageError("--out is empty, must name a directory");
  if (typeof options.quantized === "string") {
    if (typeof options.model !== "string") throw new UsageError("--quantized needs --model, which it was packed from");
    await checkQuantized(options.quantized, options.model);
  }
  const directories = new Map<string, string>();
  const lines = new Map<string, ProgressLine>();
  const shares = new Map<string, number>();
  const lineOf = (id: string) => lines.get(id) ?? lines.set(id, createProgressLine(id)).get(id)!;
  using _clearing = { [Symbol.dispose]: () => lines.forEach((line) => line.clear()) };
  const results = await runExperiments(experiments, {
    settings: readRunSettings(options),
    resume: options.resume === true,
    ...(typeof options.out === "string" && { out: options.out }),
    command: describeCall(task, options),
    onProgress(id, share, step) {
      shares.set(id, share);
      lineOf(id).update(share, step);
    },
    onRow: (id, name) => lineOf(id).step(shares.get(id) ?? 0, `row ${name}`),
    onResult({ id, verdict }, path, timeMs) {
      directories.set(id, dirname(path));
      lineOf(id).clear();
      console.error(`${id}: ${verdict.status} in ${formatSeconds(timeMs)}, ${path}`);
    },
  });
  if (options.json === true) console.log(JSON.stringify(results, null, 1));
  else for (const result of results) console.log(await summarize(result, directories.get(result.id)!));
  return 0;
}

/** The page's part above its plot and settings: claim, verdict and table, with rows of other programs. */
async function summarize(result: Result, directory: string): Promise<string> {
  const peers = join(directory, `${PEERS_ID}.json`);
  const beside = await pathExists(peers) ? peersBeside(await readResult(peers), result.id) : undefined;
  return renderResult(result, beside).split("\n## ")[0];
}
