/**
 * Output files that are either whole or absent.
 *
 * @module
 */

/** Writes bytes to the file being made. */
export type Write = (bytes: Uint8Array) => Promise<void>;

/** Partial files and directories of this process, removed when it is interrupted. */
export const unfinished: Set<string> = new Set();

/** A name beside `path` that no other call uses, in this process or another; it is in {@linkcode unfinished} from now on. */
function claimPartial(path: string): string {
  let partial = `${path}.partial-${Deno.pid}`;
  for (let i = 1; unfinished.has(partial); i++) partial = `${path}.partial-${Deno.pid}-${i}`;
  unfinished.add(partial);
  return partial;
}

/**
 * Writes a file beside its place (`path.partial-PID`) and renames it when `fill` has returned.
 * When `fill` throws or the process is interrupted the partial file is removed and `path` stays as it was.
 *
 * @throws {Error} that names the path where the disk is full or fails
 */
export async function writeBeside(path: string, fill: (write: Write) => Promise<void>): Promise<void> {
  const partial = claimPartial(path);
  const file = await Deno.open(partial, { write: true, create: true, truncate: true }).catch((error) => {
    unfinished.delete(partial);
    throw error;
  });
  try {
    const named = (error: Error) => {
      throw new Error(`${path} cannot be written: ${error.message}`, { cause: error });
    };
    await fill(async (bytes) => {
      for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written)).catch(named);
    });
    await file.sync().catch(named);
    file.close();
    await Deno.rename(partial, path);
  } catch (error) {
    try {
      file.close();
    } catch { /* closed already: the rename failed */ }
    await Deno.remove(partial).catch(() => {});
    throw error;
  } finally {
    unfinished.delete(partial);
  }
}

/** Writes a text file as {@linkcode writeBeside} does. */
export function writeTextBeside(path: string, text: string): Promise<void> {
  return writeBeside(path, (write) => write(new TextEncoder().encode(text)));
}

/** Removes the partial files and directories of this process; for the handler of an interrupt. */
export function removeUnfinished(): void {
  for (const path of unfinished) {
    try {
      Deno.removeSync(path, { recursive: true });
    } catch { /* it was not made yet, or was renamed just now */ }
  }
}
