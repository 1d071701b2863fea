// Models of the Hugging Face hub: which files of a repository are needed, and getting them into the cache.
import { statfs } from "node:fs/promises";
import { join } from "@std/path";
import { INDEX, parseShardNames } from "../files/checkpoint_folder.ts";
import { parseConfig } from "../llama/config.ts";
import { checkPlace, fetchFile } from "./hub_download.ts";
import { describeRepo, type HubFile, hubFile, type HubRepo, type HubSnapshot, openSnapshot } from "./hub_repo.ts";
import type { HubSettings } from "./hub_settings.ts";
import { pathExists } from "../host/path_exists.ts";

/** Small files that models may have. */
const OPTIONAL_FILES = [
  "tokenizer_config.json",
  "generation_config.json",
  "chat_template.jinja",
  "special_tokens_map.json",
];

/** Told of the share of the bytes that are there, and which file is being loaded. */
export type DownloadProgress = (share: number, file: string) => void;

/**
 * Gets a model into the cache and returns its directory. Configuration and tokenizer come first, so that a model that
 * can't be used is refused before its weights are loaded. Offline, what the cache has is taken as it is.
 *
 * @throws {SyntaxError} for a repository without the needed files, or of an unsupported architecture
 */
export async function fetchModel(
  repo: HubRepo,
  settings: HubSettings,
  onProgress: DownloadProgress = () => {},
): Promise<string> {
  const snapshot = await openSnapshot(repo, settings);
  const { directory, files } = snapshot;
  if (!files) {
    for await (const { name } of Deno.readDir(directory)) await checkPlace(join(directory, name), snapshot);
    return directory;
  }
  const get = (path: string) => fetchFile(snapshot, hubFile(snapshot, path), settings);
  const config = await get("config.json");
  parseConfig(`${describeRepo(repo)}, config.json`, await Deno.readTextFile(config));
  await get("tokenizer.json");
  for (const path of OPTIONAL_FILES) if (files.has(path)) await get(path);
  const weights = (await listWeights(snapshot, settings)).map((path) => hubFile(snapshot, path));
  await checkSpace(snapshot, weights);
  const total = weights.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let before = 0;
  for (const file of weights) {
    await fetchFile(snapshot, file, settings, (bytes) => onProgress((before + bytes) / total, file.path));
    before += file.sizeBytes;
  }
  return directory;
}

async function listWeights(snapshot: HubSnapshot, settings: HubSettings): Promise<string[]> {
  const { files, repo } = snapshot;
  if (files?.has("model.safetensors")) return ["model.safetensors"];
  if (!files?.has(INDEX)) {
    throw new SyntaxError(`${describeRepo(repo)} has neither model.safetensors nor ${INDEX}, must have one of them`);
  }
  const path = await fetchFile(snapshot, hubFile(snapshot, INDEX), settings);
  return [...parseShardNames(`${describeRepo(repo)}, ${INDEX}`, await Deno.readTextFile(path)).keys()];
}

/** Fails before a disk is full. */
async function checkSpace({ storage, repo, directory }: HubSnapshot, files: readonly HubFile[]): Promise<void> {
  let wanted = 0;
  for (const { path, sizeBytes } of files) if (!await pathExists(join(directory, path))) wanted += sizeBytes;
  const { bavail, bsize } = await statfs(storage);
  const free = bavail * bsize;
  if (free >= wanted) return;
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
  throw new Error(
    `${describeRepo(repo)} needs up to ${gigabytes(wanted)} GB more, ${storage} has ${
      gigabytes(free)
    } GB free; HF_HOME ` +
      "can name another place",
  );
}
