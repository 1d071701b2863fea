// The files of a model that the server hands out, and no others.
import { basename, join } from "@std/path";
import { CARRIED_FILES, isPacked } from "../model/files/packed_checkpoint.ts";
import { modelPath, openModel } from "../model/load.ts";
import type { DownloadProgress } from "../model/hub/hub_model.ts";
import { pathExists } from "../model/host/path_exists.ts";
import type { ModelListing } from "./served_model.ts";

/** A model's listing and where its files lie. */
export interface ModelFiles {
  readonly listing: ModelListing;
  /** Paths by the names in the listing. */
  readonly paths: ReadonlyMap<string, string>;
}

/**
 * Finds the files of a model that can be opened.
 *
 * @throws {SyntaxError} when it can't, or is a GGUF file, which the page can't read
 */
export async function findModelFiles(name: string, onDownload?: DownloadProgress): Promise<ModelFiles> {
  using checkpoint = await openModel(name, onDownload);
  if (checkpoint.files.some((path) => path.endsWith(".gguf"))) {
    throw new SyntaxError(`model ${name} is a GGUF file, must be a packed file or in Hugging Face layout for the page`);
  }
  const packed = isPacked(checkpoint);
  const paths = new Map(checkpoint.files.map((path) => [basename(path), path]));
  if (!packed) {
    const directory = await modelPath(name);
    for (const file of [...CARRIED_FILES, "model.safetensors.index.json"]) {
      const path = join(directory, file);
      if (await pathExists(path)) paths.set(file, path);
    }
  }
  const files: Record<string, number> = {};
  for (const [file, path] of paths) files[file] = (await Deno.stat(path)).size;
  return { listing: { name, packed, files }, paths };
}
