/**
 * Reading ranges of bytes: the one place where checkpoint files are opened.
 *
 * @module
 */

/** Something that bytes can be read from at any offset. */
export interface ByteSource extends Disposable {
  /** What error messages call it. */
  readonly name: string;
  /** All bytes. */
  readonly sizeBytes: number;
  /**
   * Reads exactly `length` bytes from `offset`.
   *
   * @throws {RangeError} when the range doesn't lie within the source
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

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

/** Wraps bytes in memory as a {@linkcode ByteSource}. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    sizeBytes: bytes.length,
    read(offset, length) {
      checkRange(name, bytes.length, offset, length);
      return Promise.resolve(new Uint8Array(bytes.subarray(offset, offset + length)));
    },
    [Symbol.dispose]: () => {},
  };
}

function checkRange(name: string, size: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new RangeError(`${name}: bytes ${offset}..${offset + length} asked for, must lie within 0..${size}`);
  }
}
