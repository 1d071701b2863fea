// Files of the hub's data sets.
import { join } from "@std/path";
import { pathExists } from "../host/path_exists.ts";
import { checkPlace, fetchFile } from "./hub_download.ts";
import { describeRepo, hubFile, openSnapshot } from "./hub_repo.ts";
import type { HubSettings } from "./hub_settings.ts";

export interface DatasetFile {
  /** ORG/NAME */
  readonly dataset: string;
  readonly folder: string;
  readonly file: string;
}

/**
 * Gets a file into the hub's cache.
 *
 * @returns its path there
 * @throws {Error} saying what to do when the hub can't be reached, or the cache lacks it and HF_HUB_OFFLINE is set
 */
export async function fetchDatasetFile({ dataset, folder, file }: DatasetFile, settings: HubSettings): Promise<string> {
  const repo = { type: "dataset", name: dataset, revision: "main" } as const;
  const snapshot = await openSnapshot(repo, settings, folder);
  const path = `${folder}/${file}`;
  if (snapshot.files) return await fetchFile(snapshot, hubFile(snapshot, path), settings);
  const cached = join(snapshot.directory, path);
  if (await pathExists(cached)) return await checkPlace(cached, snapshot);
  throw new Error(`${describeRepo(repo)}: ${path} is not in the cache ${settings.cache}, and HF_HUB_OFFLINE is set`);
}
