// JSON that this program or another that it ran wrote.

/**
 * Parses a text that is taken for a `T`.
 *
 * @param name of the text, for errors
 * @throws {SyntaxError} when it isn't JSON
 */
export function parseJson<T>(name: string, text: string, revive?: Parameters<typeof JSON.parse>[1]): T {
  try {
    return JSON.parse(text, revive);
  } catch (cause) {
    throw new SyntaxError(`${name} is not valid JSON: ${(cause as Error).message}`, { cause });
  }
}
