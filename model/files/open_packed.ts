// Opening a packed file on a disk.
import type { ByteSource } from "./byte_source.ts";
import { openFileSource } from "./file_source.ts";
import { type PackedCheckpoint, readPackedCheckpoint } from "./packed_checkpoint.ts";

/** Opens a packed file. @throws {SyntaxError} when it isn't one, or breaks a rule of the format */
export async function openPacked(path: string): Promise<PackedCheckpoint> {
  const source = await openFileSource(path);
  if (await isGguf(source)) {
    source[Symbol.dispose]();
    throw new SyntaxError(`${path} is a GGUF file, which quantize --model packs and other commands read as it is`);
  }
  return await readPackedCheckpoint(path, source);
}

/** Whether a file begins as GGUF files do. */
async function isGguf(source: ByteSource): Promise<boolean> {
  return source.sizeBytes >= 4 && new TextDecoder().decode(await source.read(0, 4)) === "GGUF";
}
