// Values as text: Python's str(), repr() and json.dumps().
import { Float, Safe, Tuple, typeName, type Value, View } from "./value.ts";

/** str(value), of an undefined one nothing. @throws {TypeError} where Python prints an address */
export function toText(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Safe) return value.text;
  return value === undefined ? "" : toSource(value);
}

/** repr(value) @throws {TypeError} where Python prints an address */
export function toSource(value: Value): string {
  if (value === undefined) return "Undefined";
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return quote(value);
  if (value instanceof Float) return floatText(value.value);
  if (Array.isArray(value)) return `[${value.map(toSource).join(", ")}]`;
  if (value instanceof Tuple) return `(${value.items.map(toSource).join(", ")}${value.items.length === 1 ? "," : ""})`;
  if (value instanceof Map) {
    return `{${Array.from(value, ([key, item]) => `${toSource(key)}: ${toSource(item)}`).join(", ")}}`;
  }
  if (value instanceof View && value.name) return `${value.name}([${value.items.map(toSource).join(", ")}])`;
  throw new TypeError(`a ${typeName(value)} cannot be printed`);
}

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const short: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" };
  const body = Array.from(text, (character) => {
    if (character === mark) return `\\${mark}`;
    if (Object.hasOwn(short, character)) return short[character];
    if (character === " " || !/[\p{C}\p{Z}]/u.test(character)) return character;
    const code = character.codePointAt(0)!;
    const hex = (digits: number) => code.toString(16).padStart(digits, "0");
    return code < 0x100 ? `\\x${hex(2)}` : code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
  });
  return mark + body.join("") + mark;
}

/** repr() of a float: shortest digits, an exponent from 1e16 on and below 1e-4. */
function floatText(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [digits, exponent] = value.toExponential().split("e");
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  }
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

/** How JSON is written. */
export interface JsonStyle {
  /** Spaces, or a text, before each level of a line of its own; null keeps all on one line. */
  readonly indent: string | null;
  /** Between items, and between a key and its value. */
  readonly separators: readonly [string, string];
  /** Whether all but ASCII is escaped. */
  readonly ascii: boolean;
  readonly sortKeys: boolean;
}

/** json.dumps(value) @throws {TypeError} for a value that JSON hasn't */
export function toJson(value: Value, style: JsonStyle, level = 0): string {
  if (value === null) return "null";
  if (typeof value === "boolean" || typeof value === "number") return String(value);
  if (typeof value === "string") return jsonText(value, style.ascii);
  if (value instanceof Float) {
    return Number.isNaN(value.value) ? "NaN" : floatText(value.value).replace("inf", "Infinity");
  }
  const wrap = (open: string, items: readonly string[], close: string) => {
    if (items.length === 0) return open + close;
    if (style.indent === null) return open + items.join(style.separators[0]) + close;
    const line = (depth: number) => `\n${style.indent!.repeat(depth)}`;
    return open + line(level + 1) + items.join(style.separators[0] + line(level + 1)) + line(level) + close;
  };
  if (Array.isArray(value) || value instanceof Tuple) {
    const items = Array.isArray(value) ? value : value.items;
    return wrap("[", items.map((item) => toJson(item, style, level + 1)), "]");
  }
  if (value instanceof Map) {
    const entries = Array.from(value, ([key, item]) => [jsonKey(key), item] as const);
    if (style.sortKeys) entries.sort(([a], [b]) => a < b ? -1 : 1);
    const pair = ([key, item]: readonly [string, Value]) =>
      jsonText(key, style.ascii) + style.separators[1] + toJson(item, style, level + 1);
    return wrap("{", entries.map(pair), "}");
  }
  throw new TypeError(`a ${typeName(value)} cannot be written as JSON`);
}

function jsonKey(key: Value): string {
  if (typeof key === "string") return key;
  if (typeof key === "number") return String(key);
  throw new TypeError(`a key is a ${typeName(key)}, must be a text for JSON`);
}

function jsonText(text: string, ascii: boolean): string {
  const quoted = JSON.stringify(text);
  if (!ascii) return quoted;
  return quoted.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
