// Opening checkpoint files on a disk.
import { basename, dirname, join, relative } from "@std/path";
import { type Checkpoint, MAX_TEXT_BYTES } from "./checkpoint.ts";
import {
  type CheckpointFolder,
  readCheckpointFolder,
  readShards,
  readSource,
  type Shards,
} from "./checkpoint_folder.ts";
import { openFileSource } from "./file_source.ts";
import { undefinedIfMissing } from "../host/path_exists.ts";
import type { SafetensorsFile } from "./safetensors.ts";

/** Opens a checkpoint directory. @throws {SyntaxError} when a file is missing or malformed */
export async function openDirectory(directory: string): Promise<Checkpoint> {
  return await readCheckpointFolder(folderAt(directory));
}

/**
 * Opens all safetensors files of a directory in Hugging Face's layout, of whatever model: `model.safetensors`, or the shards
 * that `model.safetensors.index.json` names.
 *
 * @throws {SyntaxError} when a file is missing or malformed
 */
export async function openShards(directory: string): Promise<Shards> {
  return await readShards(folderAt(directory));
}

function folderAt(directory: string): CheckpointFolder {
  return {
    name: directory,
    readText: (file) => readText(directory, file).catch(undefinedIfMissing),
    open: async (file) => await placeIn(directory, file).then(openFileSource).catch(undefinedIfMissing),
  };
}

/** Path of a file that lies in a directory. @throws {SyntaxError} for a link that leads elsewhere */
async function placeIn(directory: string, file: string): Promise<string> {
  const path = join(directory, file);
  const [real, root] = [await Deno.realPath(path), await Deno.realPath(directory)];
  // In the hub's cache the files of a snapshot are links to the blobs of their repository.
  const places = basename(dirname(root)) === "snapshots" ? [root, join(root, "../../blobs")] : [root];
  if (places.some((place) => !relative(place, real).startsWith(".."))) return path;
  throw new SyntaxError(`${path} is a link to ${real}, must lead nowhere outside ${directory}`);
}

/**
 * Opens a safetensors file and reads its header; dispose it to close it.
 *
 * @throws {SyntaxError} when it is missing or malformed
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const source = await openFileSource(path).catch(undefinedIfMissing);
  if (!source) throw new SyntaxError(`${path} is missing`);
  return await readSource(source);
}

async function readText(directory: string, file: string): Promise<string> {
  const path = await placeIn(directory, file);
  const { size, isFile } = await Deno.stat(path);
  if (!isFile) throw new SyntaxError(`${path} is not a file`);
  if (size > MAX_TEXT_BYTES) throw new SyntaxError(`${path} has ${size} bytes, must have at most ${MAX_TEXT_BYTES}`);
  return await Deno.readTextFile(path);
}
