// Reading ranges of a file's bytes: the one place where checkpoint files are opened.
import { type ByteSource, checkRange } from "./byte_source.ts";

/** Opens a file as a {@linkcode ByteSource}; dispose it to close the file. */
export async function openFileSource(path: string): Promise<ByteSource> {
  // Opening a pipe would wait for its other end.
  if (!(await Deno.stat(path)).isFile) throw new TypeError(`${path} is not a file`);
  const file = await Deno.open(path, { read: true });
  const { size } = await file.stat();
  const readAt = async (offset: number, length: number) => {
    const bytes = new Uint8Array(length);
    await file.seek(offset, Deno.SeekMode.Start);
    for (let filled = 0; filled < length;) {
      const count = await file.read(bytes.subarray(filled));
      if (count === null) throw new RangeError(`${path} ended at byte ${offset + filled}, must hold ${size} bytes`);
      filled += count;
    }
    return bytes;
  };
  // A file has one position, so reads that are asked for at once go one after the other.
  let reading: Promise<unknown> = Promise.resolve();
  return {
    name: path,
    sizeBytes: size,
    async read(offset, length) {
      checkRange(path, size, offset, length);
      const bytes = reading.then(() => readAt(offset, length));
      reading = bytes.catch(() => {});
      return await bytes;
    },
    [Symbol.dispose]: () => file.close(),
  };
}
