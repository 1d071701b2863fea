/**
 * What is at a path, or whether anything is. Any other obstacle than absence is an error, not a no.
 *
 * @module
 */

/** What is at a path, where anything is; below a file there is nothing. */
export async function statPath(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/** Whether a path exists. */
export async function pathExists(path: string): Promise<boolean> {
  return await statPath(path) !== undefined;
}
