/**
 * Opening a packed file on a disk.
 *
 * @module
 */
import { openFileSource } from "./file_source.ts";
import { type PackedCheckpoint, readPackedCheckpoint } from "./packed_checkpoint.ts";

/**
 * Opens a packed file.
 *
 * @throws {SyntaxError} when it isn't one, or breaks a rule of the format
 */
export async function openPacked(path: string): Promise<PackedCheckpoint> {
  return await readPackedCheckpoint(path, await openFileSource(path));
}
