// What git leaves in place of a large file that was not fetched.

/** How such a text begins. */
const START = "version https://git-lfs";

/** Fails for a text that only says where the file is. @throws {SyntaxError} */
export function refuseLfsPointer(name: string, text: string): void {
  if (!text.startsWith(START)) return;
  throw new SyntaxError(`${name}: this is a git-lfs pointer in place of the file, must be fetched with git lfs pull`);
}
