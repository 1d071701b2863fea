// Output files that are either whole or absent.
import { basename, dirname, join } from "@std/path";
import { statPath } from "./path_exists.ts";

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
 * Removes what killed processes left half written beside a path; only for who has its lock ({@linkcode lockPath}). In a
 * directory that may be written but not listed they stay: nobody here can know their names.
 */
export async function removePartials(path: string): Promise<void> {
  try {
    for await (const { name } of Deno.readDir(dirname(path))) {
      const partial = join(dirname(path), name);
      const isOfPath = name.startsWith(`${basename(path)}.partial-`) && /\.partial-\d+(-\d+)?$/.test(name);
      if (isOfPath && !unfinished.has(partial)) await Deno.remove(partial, { recursive: true });
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
  }
}

/**
 * Fails where something lies at a path that no output may replace.
 *
 * @param sources files that the output is made from
 * @throws {Error} for a directory, a device or a pipe, and for one of the sources, by whatever name
 */
export async function refuseReplacing(path: string, sources: readonly string[] = []): Promise<void> {
  const there = await statPath(path);
  if (!there) return;
  if (there.isDirectory) throw new Error(`${path} is a directory, must be a file`);
  if (!there.isFile) throw new Error(`${path} is a device or a pipe, must be a regular file`);
  for (const source of sources) {
    const own = await statPath(source);
    if (own && own.dev === there.dev && own.ino === there.ino) {
      throw new Error(`${path} is part of the source, must be another file`);
    }
  }
}

/**
 * Writes a file beside its place (`path.partial-PID`) and renames it when `fill` has returned.
 * When `fill` throws or the process is interrupted the partial file is removed and `path` stays as it was.
 *
 * @throws {Error} that names the path where the disk is full or fails, or where something lies there that is no file
 */
export async function writeBeside(path: string, fill: (write: Write) => Promise<void>): Promise<void> {
  await refuseReplacing(path);
  const partial = claimPartial(path);
  // Without a pause: an interrupt finds the file there or never made.
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(partial, { write: true, create: true, truncate: true });
  } catch (error) {
    unfinished.delete(partial);
    throw error;
  }
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
