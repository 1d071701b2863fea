// Reading ranges of bytes, wherever they lie.

/** Something that bytes can be read from at any offset. */
export interface ByteSource extends Disposable {
  /** What error messages call it. */
  readonly name: string;
  /** All bytes. */
  readonly sizeBytes: number;
  /** Reads exactly `length` bytes from `offset`. @throws {RangeError} when the range doesn't lie within the source */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
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

/**
 * Wraps a file that a person chose, or any other blob, as a {@linkcode ByteSource}; its bytes are read when asked for.
 */
export function blobSource(name: string, blob: Blob): ByteSource {
  return {
    name,
    sizeBytes: blob.size,
    async read(offset, length) {
      checkRange(name, blob.size, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
    [Symbol.dispose]: () => {},
  };
}

/** Refuses a range that isn't within a source. @throws {RangeError} */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new RangeError(`${name}: bytes ${offset}..${offset + length} asked for, must lie within 0..${size}`);
  }
}
