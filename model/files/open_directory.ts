/**
 * Opening checkpoint files on a disk.
 *
 * @module
 */
import { join } from "@std/path";
import type { ByteSource } from "./byte_source.ts";
import { type Checkpoint, MAX_TEXT_BYTES } from "./checkpoint.ts";
import {
  type CheckpointFolder,
  readCheckpointFolder,
  readShards,
  readSource,
  type Shards,
} from "./checkpoint_folder.ts";
import { openFileSource } from "./file_source.ts";
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
    readText: (file) => readTextIfThere(join(directory, file)),
    open: (file) => openIfThere(join(directory, file)),
  };
}

/**
 * Opens a safetensors file and reads its header; dispose it to close it.
 *
 * @throws {SyntaxError} when it is missing or malformed
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const source = await openIfThere(path);
  if (!source) throw new SyntaxError(`${path} is missing`);
  return await readSource(source);
}

function openIfThere(path: string): Promise<ByteSource | undefined> {
  return openFileSource(path).catch(undefinedIfMissing);
}

async function readTextIfThere(path: string): Promise<string | undefined> {
  try {
    const { size } = await Deno.stat(path);
    if (size > MAX_TEXT_BYTES) throw new SyntaxError(`${path} has ${size} bytes, must have at most ${MAX_TEXT_BYTES}`);
    return await Deno.readTextFile(path);
  } catch (error) {
    return undefinedIfMissing(error);
  }
}

/** Any other obstacle than absence is an error. */
function undefinedIfMissing(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
