// What a file or a server says, as part of a message: on one line, short, and with nothing that a terminal obeys.

/** Everything that isn't seen as itself: control and format characters, line separators, halves of pairs. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** Quotes a value as JSON, cut to `limit` characters. */
export function quoteText(value: unknown, limit = 60): string {
  // What is cut off anyway isn't escaped first.
  const start = typeof value === "string" ? value.slice(0, limit + 1) : value;
  const text = JSON.stringify(start, (_, item) => typeof item === "bigint" ? `${item}` : item);
  return clipText(text ?? String(value), limit);
}

/** Takes a text as it is, but for what isn't seen, cut to `limit` characters: messages of other programs. */
export function clipText(text: string, limit = 120): string {
  const isLong = text.length > limit;
  // No half of a pair stays behind.
  const start = isLong ? text.slice(0, limit).replace(/[\ud800-\udbff]$/, "") : text;
  const clean = start.replace(UNSEEN, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
  if (clean.length > 2 * limit) return `${clean.slice(0, limit)}...`;
  return isLong ? `${clean}...` : clean;
}
