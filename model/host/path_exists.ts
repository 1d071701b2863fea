// What is at a path, or whether anything is. Any other obstacle than absence is an error, not a no.

/**
 * Gives undefined where a file was missing: `await Deno.stat(path).catch(undefinedIfMissing)`. Below a file there is
 * nothing.
 *
 * @throws any other error
 */
export function undefinedIfMissing(error: unknown): undefined {
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
  throw error;
}

export async function statPath(path: string): Promise<Deno.FileInfo | undefined> {
  return await Deno.stat(path).catch(undefinedIfMissing);
}

/** The same without a pause. */
export function statPathSync(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    return undefinedIfMissing(error);
  }
}

export async function pathExists(path: string): Promise<boolean> {
  return await statPath(path) !== undefined;
}
