// Reading JSON that somebody else wrote: duplicate keys, and typed fields with errors that name file, field and value.
import { refuseLfsPointer } from "./lfs_pointer.ts";
import { clipText, quoteText } from "./quote_text.ts";

/**
 * Finds a key that occurs twice at the top level of a JSON object; `JSON.parse` keeps the last and says nothing.
 *
 * @param text valid JSON whose root is an object
 * @returns the key and its offset in bytes
 */
export function findDuplicateKey(text: string): { key: string; offset: number } | undefined {
  const seen = new Set<string>();
  let depth = 0;
  const colon = /\s*:/y;
  const token = /"(?:[^"\\]|\\.)*"|[{}[\]]/gs;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const found = match[0];
    if (found === "{" || found === "[") depth++;
    else if (found === "}" || found === "]") depth--;
    else if (depth === 1) {
      colon.lastIndex = token.lastIndex;
      if (!colon.test(text)) continue;
      const key = JSON.parse(found) as string;
      if (seen.has(key)) return { key, offset: new TextEncoder().encode(text.slice(0, match.index)).length };
      seen.add(key);
    }
  }
}

/** Nesting that no file of a model reaches. */
const MAX_DEPTH = 64;

/** Characters of a string that none reaches either; chat templates have some ten thousand. */
const MAX_STRING = 2 ** 20;

/**
 * Parses JSON that somebody else wrote. Nesting and the length of strings are bounded before anything is built.
 *
 * @throws {SyntaxError} for text that isn't JSON, or beyond the bounds
 */
export function parseBoundedJson(text: string): unknown {
  checkBounds(text);
  return JSON.parse(text);
}

function checkBounds(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '"':
        at = endOfString(text, at);
        break;
      case "{":
      case "[":
        if (++depth > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH} levels at character ${at}`);
        break;
      case "}":
      case "]":
        depth--;
    }
  }
}

/** Position of the quote that ends the string which starts at `start`; the text's end where there is none. */
function endOfString(text: string, start: number): number {
  let end = start + 1;
  while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
  if (end - start > MAX_STRING) {
    throw new SyntaxError(
      `string of ${end - start - 1} characters at character ${start}, must have at most ${MAX_STRING}`,
    );
  }
  return end;
}

/** A JSON object, and the name that error messages give it. */
export interface JsonObject {
  readonly name: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Parses a JSON object. @throws {SyntaxError} when the text isn't one */
export function parseJsonObject(name: string, text: string): JsonObject {
  refuseLfsPointer(name, text);
  let value: unknown;
  try {
    value = parseBoundedJson(text);
  } catch (error) {
    throw new SyntaxError(`${name} is not valid JSON: ${clipText((error as Error).message)}`);
  }
  return asJsonObject(name, value);
}

/** Takes a value as a JSON object. @throws {SyntaxError} when it isn't one */
export function asJsonObject(name: string, value: unknown): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SyntaxError(`${name} is ${quoteText(value)}, must be a JSON object`);
  }
  return { name, fields: value as Record<string, unknown> };
}

/** Which numbers a field may hold. */
export interface NumberRule {
  readonly min: number;
  readonly max?: number;
  readonly integer?: boolean;
  /** Value of an absent or null field; without it the field must be there. */
  readonly fallback?: number;
}

/** Reads a number from a field. @throws {SyntaxError} naming the field, its value and the rule */
export function numberField({ name, fields }: JsonObject, key: string, rule: NumberRule): number {
  const value = fields[key] ?? rule.fallback;
  const { min, max = Number.MAX_SAFE_INTEGER, integer = false } = rule;
  if (typeof value !== "number" || !(value >= min && value <= max) || (integer && !Number.isInteger(value))) {
    const kind = integer ? "an integer" : "a number";
    throw new SyntaxError(
      `${name}: ${key} is ${quoteText(fields[key])}, must be ${kind} between ${min} and ${max}`,
    );
  }
  return value;
}

/** Reads a boolean from a field; absent or null means `fallback`. @throws {SyntaxError} */
export function booleanField({ name, fields }: JsonObject, key: string, fallback: boolean): boolean {
  const value = fields[key] ?? fallback;
  if (typeof value !== "boolean") {
    throw new SyntaxError(`${name}: ${key} is ${quoteText(value)}, must be true or false`);
  }
  return value;
}

/** Reads a text from a field; absent or null means `fallback`. @throws {SyntaxError} */
export function textField({ name, fields }: JsonObject, key: string, fallback?: string): string {
  const value = fields[key] ?? fallback;
  if (typeof value !== "string") throw new SyntaxError(`${name}: ${key} is ${quoteText(fields[key])}, must be a text`);
  return value;
}

/** Reads a list from a field. @throws {SyntaxError} */
export function listField({ name, fields }: JsonObject, key: string): readonly unknown[] {
  const value = fields[key];
  if (!Array.isArray(value)) throw new SyntaxError(`${name}: ${key} is ${quoteText(value)}, must be a list`);
  return value;
}

/** Fails for a setting that has another value than those that are known, of which undefined is none. @throws {SyntaxError} */
export function refuseOthers(name: string, key: string, value: unknown, known: readonly unknown[]): void {
  if (known.includes(value)) return;
  const wanted = known.map((item) => item ?? "absent").join(" or ");
  throw new SyntaxError(`${name}: ${key} is ${quoteText(value)}, must be ${wanted}`);
}

/** Makes what an object with a field `type` describes, by a table of the types. @throws {SyntaxError} for any other */
export function byType<T>(json: JsonObject, table: Readonly<Record<string, (json: JsonObject) => T>>): T {
  const { type } = json.fields;
  if (typeof type === "string" && Object.hasOwn(table, type)) return table[type](json);
  throw new SyntaxError(
    `${json.name} has type ${quoteText(type)}, must have one of ${Object.keys(table).join(", ")}`,
  );
}
