// Where results come from: a directory, a device of this repository, or a git revision of it.
import { basename, dirname, join } from "@std/path";
import { pathExists } from "../model/host/path_exists.ts";
import { readAllResults } from "./render.ts";
import { parseResult, type Result } from "./results/result.ts";
import { RESULTS_ROOT } from "./run.ts";

/** Results by name: `<id>`, after the device, the model or both where the source holds several of these. */
export type ResultSet = ReadonlyMap<string, Result>;

/**
 * Reads results.
 *
 * @param source a directory of result files or of devices, a device's name, or `git:REVISION`
 * @param root directory of devices that names and revisions are about
 * @throws {Error} when the source is none of these
 */
export async function readResultSource(source: string, root: string = RESULTS_ROOT): Promise<ResultSet> {
  if (source.startsWith("git:")) return await readRevision(source.slice("git:".length), root);
  if (await pathExists(source)) return await readDirectory(source);
  const device = join(root, source);
  if (basename(source) === source && await pathExists(device)) return await readDirectory(device);
  const devices = [...(await readAllResults(root)).keys()].join(", ");
  throw new Error(`${source} is nothing to compare, must be a directory, a device (${devices}) or git:REVISION`);
}

async function readDirectory(directory: string): Promise<ResultSet> {
  const set = new Map<string, Result>();
  for (const [place, results] of await readAllResults(directory)) {
    for (const [id, result] of results) set.set(place === "" ? id : `${place}/${id}`, result);
  }
  return set;
}

/** The committed results of all devices at a revision. */
async function readRevision(revision: string, root: string): Promise<ResultSet> {
  const listed = await git(root, "ls-tree", "-r", "--name-only", "-z", revision, "--", ".");
  const set = new Map<string, Result>();
  for (const path of listed.split("\0").filter((path) => path.endsWith(".json"))) {
    const result = parseResult(`${revision}:${path}`, await git(root, "show", `${revision}:./${path}`));
    set.set(`${dirname(path)}/${result.id}`, result);
  }
  return set;
}

async function git(cwd: string, ...args: string[]): Promise<string> {
  let output;
  try {
    output = await new Deno.Command("git", { args, cwd }).output();
  } catch (cause) {
    throw new Error("git is not there, must be to read a revision", { cause });
  }
  const decoder = new TextDecoder();
  if (!output.success) throw new Error(`git ${args[0]}: ${decoder.decode(output.stderr).trim().split("\n")[0]}`);
  return decoder.decode(output.stdout);
}
