/**
 * Damaged and hostile files made of good ones.
 *
 * @module
 */
import type { Random } from "../../../quant/random.ts";

/** What a stranger may put in place of a value. */
const JUNK: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  0.5,
  4294967295,
  2 ** 53,
  1e308,
  "",
  "\u001b[31m\n\r\u2028",
  "x".repeat(5000),
  "__proto__",
  "(a+)+$",
  "[",
  [],
  {},
  [[[[[[]]]]]],
  { type: "Sequence" },
  new Array(2000).fill(7),
];

/** A copy of a JSON value with a part of it replaced, left out, doubled or taken from elsewhere. */
export function mutateJson(value: unknown, random: Random): unknown {
  const copy = structuredClone(value);
  let at = copy;
  while (true) {
    const keys = Object.keys(at as object);
    const key = keys[random.integer(keys.length)];
    const fields = at as Record<string, unknown>;
    const inner = fields[key];
    const goesOn = typeof inner === "object" && inner !== null && Object.keys(inner).length > 0 &&
      random.integer(4) > 0;
    if (goesOn) {
      at = inner;
      continue;
    }
    const kind = random.integer(4);
    if (kind === 0) delete fields[key];
    else if (kind === 1) fields[key] = JUNK[random.integer(JUNK.length)];
    else if (kind === 2) fields[keys[random.integer(keys.length)]] = inner;
    else fields[`${key}${random.integer(3)}`] = inner;
    return copy;
  }
}

/** A text with a piece cut out, doubled, or replaced by another. */
export function mutateText(text: string, random: Random, pieces: readonly string[]): string {
  const [start, length] = [random.integer(text.length), 1 + random.integer(12)];
  const piece = text.slice(start, start + length);
  const other = pieces[random.integer(pieces.length)];
  const put = ["", piece + piece, other, other + piece][random.integer(4)];
  return text.slice(0, start) + put + text.slice(start + length);
}
