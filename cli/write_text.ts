// Writing text to a stream that somebody reads, for as long as they do.

/** Takes bytes, perhaps only some of them. */
export interface ByteOutput {
  /** Writes from the start of `bytes`; returns how many were taken. */
  write(bytes: Uint8Array): Promise<number>;
}

/** Writes all of a text; returns whether it was taken, which it isn't once nobody reads any more (a broken pipe). */
export async function writeText(output: ByteOutput, text: string): Promise<boolean> {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let written = 0; written < bytes.length;) written += await output.write(bytes.subarray(written));
    return true;
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
    return false;
  }
}
