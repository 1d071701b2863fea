/**
 * Whether a path is there.
 *
 * @module
 */

/** Whether a path exists. Any other obstacle than its absence is an error, not a no. */
export async function pathExists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
