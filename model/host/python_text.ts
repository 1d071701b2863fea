/**
 * String operations with Python's rules, where a protocol is defined by a Python program and JavaScript's rules differ.
 *
 * @module
 */

/** What Python's str.isspace() takes for space; JavaScript's \s lacks the separators and has U+FEFF. */
const SPACES = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const LEADING = new RegExp(`^${SPACES}`);
const TRAILING = new RegExp(`${SPACES}$`);

/** str.strip() */
export function strip(text: string): string {
  return stripEnd(text.replace(LEADING, ""));
}

/** str.rstrip() */
export function stripEnd(text: string): string {
  return text.replace(TRAILING, "");
}

/** str.capitalize() */
export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** len(str): code points. */
export function lengthOf(text: string): number {
  return Array.from(text).length;
}
