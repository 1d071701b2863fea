// String operations with Python's rules, where a protocol is defined by a Python program and JavaScript's rules differ.

/** What Python's str.isspace() takes for space; JavaScript's \s lacks the separators and has U+FEFF. */
const SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const LEADING = new RegExp(`^[${SPACES}]+`);
const SPACE = new RegExp(`[${SPACES}]`);

/** What str.split() without a separator gives. */
export const WORDS: RegExp = new RegExp(`[^${SPACES}]+`, "g");

/** str.strip() */
export function strip(text: string): string {
  return stripEnd(stripStart(text));
}

/** str.lstrip() */
export function stripStart(text: string): string {
  return text.replace(LEADING, "");
}

/** str.rstrip() */
export function stripEnd(text: string): string {
  let end = text.length;
  while (end > 0 && SPACE.test(text[end - 1])) end--;
  return text.slice(0, end);
}

const LINE_BREAK = new RegExp("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]");

/** str.splitlines() */
export function splitLines(text: string): string[] {
  const lines = text.split(LINE_BREAK);
  return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
}

/** str.capitalize() */
export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return titleCase(first) + rest.join("").toLowerCase();
}

/** A character as a word's first: what becomes several capitals has one. */
export function titleCase(character: string): string {
  const [first = "", ...rest] = character.toUpperCase();
  return first + rest.join("").toLowerCase();
}

/** len(str): code points. */
export function lengthOf(text: string): number {
  return Array.from(text).length;
}
