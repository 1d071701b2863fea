// Where and how a result was made: device, versions, commit, command.
import { createHash } from "node:crypto";
import { fromFileUrl } from "@std/path";
import { type AdapterDescription, describeAdapter } from "../kernels/gpu/adapter.ts";
import type { Checkpoint } from "../model/files/checkpoint.ts";
import { dawnVersion } from "../model/host/dawn.ts";
import { splitJoined } from "../model/text/calibration_names.ts";
import type { Provenance } from "./results/result.ts";

/**
 * Directory name of a device: `software` where timings mean nothing, else the adapter's name, without the memory that
 * NVIDIA's driver adds to some (`NVIDIA H100 80GB HBM3`).
 */
export function deviceName(adapter: Pick<AdapterDescription, "name" | "software"> | undefined): string {
  if (!adapter || adapter.software) return "software";
  return adapter.name.toLowerCase().replace(/ \d+gb hbm\w*$/, "").replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
}

export async function describeDevice(): Promise<Provenance["device"]> {
  const adapter = await describeAdapter();
  return { name: deviceName(adapter), adapter: adapter?.name ?? "none", software: adapter?.software ?? true };
}

/**
 * Describes the environment of a result.
 *
 * A copy of the tree that git doesn't describe (on a machine that only lends its GPU) takes the commit from
 * TWOBIT_COMMIT, which whoever copied a clean tree sets.
 */
export async function describeEnvironment(
  model: { readonly name: string; readonly sha256: string },
  seed: number,
  command: string,
): Promise<Provenance["environment"]> {
  const isDawn = (await describeAdapter())?.capabilities.implementation === "Dawn";
  return {
    deno: Deno.version.deno,
    ...(isDawn && { webgpu: `Dawn of npm:webgpu@${dawnVersion()}` }),
    commit: await describeCommit(),
    dirty: await describeChanges() !== "",
    model,
    seed,
    command,
    startedAt: new Date().toISOString(),
  };
}

/**
 * Paths without this machine's directories, alone or behind `name:`, joined by `+` as calibration texts are or by `,`
 * before a `name:`; names of the hub as they are.
 */
export function withoutDirectories(names: string): string {
  const shorten = (name: string) =>
    name.startsWith("hf:") ? name : name.replace(/(?<=.)[/\\]+$/, "").replace(/^(\w+:)?.*[/\\](?=.)/s, "$1");
  return names.split(/,(?=\w+:)/).map((part) => splitJoined(part).map(shorten).join("+")).join();
}

/** A file or a model in words: its name without directories, and what it holds. */
export function describeFile(path: string, sha256: string): string {
  return `${withoutDirectories(path)} (sha256 ${sha256.slice(0, 16)})`;
}

/** The path in the name of a text that is a file's, `KIND:PATH`. */
export function pathOfText(name: string): string | undefined {
  return /^\w+:(.+)$/s.exec(name)?.[1];
}

/** An evaluation text by its name, one from a file as {@linkcode describeFile} has it. */
export async function describeText(name: string): Promise<string> {
  const path = pathOfText(name);
  if (path === undefined) return name;
  return describeFile(path, createHash("sha256").update(await Deno.readFile(path)).digest("hex"));
}

/** Types that the matrices of a model's layers are stored in, and whether they are decoded before they are used. */
export function describeTypes({ tensors }: Checkpoint): string {
  const counts = new Map<string, number>();
  for (const { name, dtype, blocks } of tensors) {
    if (!name.endsWith("_proj.weight")) continue;
    const type = blocks ? `${blocks.type.name}, decoded` : dtype;
    counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  if (counts.size === 1) return [...counts.keys()][0];
  return Array.from(counts, ([type, count]) => `${count} matrices: ${type}`).join("; ");
}

/** The commit that runs, as far as it is known. */
export async function describeCommit(): Promise<string> {
  return copiedCommit() ?? await git("rev-parse", "HEAD") ?? "unknown";
}

/**
 * A hash of what differs from the commit: changed lines, and names of files that git doesn't know; nothing in a clean
 * tree. Result files don't count: every run but the first would be dirty.
 */
export async function describeChanges(): Promise<string> {
  if (copiedCommit() !== undefined) return "";
  const status = await git("status", "--porcelain", "--", ":!results");
  if (status === "") return "";
  return createHash("sha256").update(`${status}\n${await git("diff", "HEAD", "--", ":!results")}`).digest("hex");
}

function copiedCommit(): string | undefined {
  return Deno.env.get("TWOBIT_COMMIT");
}

async function git(...args: string[]): Promise<string | undefined> {
  try {
    const cwd = fromFileUrl(new URL("..", import.meta.url));
    const { success, stdout } = await new Deno.Command("git", { args, cwd, stderr: "null" }).output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch {
    return undefined; // no git on this machine: the commit is reported as unknown
  }
}
