/**
 * Reading ranges of a file's bytes: the one place where checkpoint files are opened.
 *
 * @module
 */
import { type ByteSource, checkRange } from "./byte_source.ts";

/** Opens a file as a {@linkcode ByteSource}; dispose it to close the file. */
export async function openFileSource(path: string): Promise<ByteSource> {
  const file = await Deno.open(path, { read: true });
  const { size, isFile } = await file.stat();
  if (!isFile) {
    file.close();
    throw new TypeError(`${path} is not a file`);
  }
  return {
    name: path,
    sizeBytes: size,
    async read(offset, length) {
      checkRange(path, size, offset, length);
      const bytes = new Uint8Array(length);
      await file.seek(offset, Deno.SeekMode.Start);
      for (let filled = 0; filled < length;) {
        const count = await file.read(bytes.subarray(filled));
        if (count === null) throw new RangeError(`${path} ended at byte ${offset + filled}, must hold ${size} bytes`);
        filled += count;
      }
      return bytes;
    },
    [Symbol.dispose]: () => file.close(),
  };
}
