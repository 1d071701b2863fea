// Opening a packed file on a disk.
import { openFileSource } from "./file_source.ts";
import { isGguf } from "./gguf_file.ts";
import { type PackedCheckpoint, readPackedCheckpoint } from "./packed_checkpoint.ts";

/** Opens a packed file. @throws {SyntaxError} when it isn't one, or breaks a rule of the format */
export async function openPacked(path: string): Promise<PackedCheckpoint> {
  if (await isGguf(path)) {
    throw new SyntaxError(`${path} is a GGUF file, which quantize --model packs and other commands read as it is`);
  }
  return await readPackedCheckpoint(path, await openFileSource(path));
}
