// Methods of texts and dictionaries, with Python's rules: those that published chat templates use. The others are
// refused by name; those that change a value are refused in jinja2 too.
import { capitalize, strip, stripEnd, stripStart, WORDS } from "../../host/python_text.ts";
import type { Budget } from "./budget.ts";
import { parameters } from "./parameters.ts";
import { type Callable, itemsOf, Tuple, typeName, type Value, View, whole } from "./value.ts";

/** A method of a value; undefined where Python has none of this name. @throws {TypeError} for one that isn't known here */
export function methodOf(value: Value, name: string, budget: Budget): Callable | undefined {
  const type = typeName(value);
  if (Object.hasOwn(UNKNOWN, type) && UNKNOWN[type].includes(name)) {
    throw new TypeError(`${type}.${name} is not known here`);
  }
  if (typeof value === "string") return textMethod(value, name, budget);
  return value instanceof Map && Object.hasOwn(DICTIONARY, name) ? DICTIONARY[name](value) : undefined;
}

/** The methods that Python has besides, by type. */
const UNKNOWN: Readonly<Record<string, readonly string[]>> = {
  str: ("casefold center count encode expandtabs find format format_map index isalnum isalpha isascii isdecimal " +
    "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper ljust maketrans partition " +
    "removeprefix removesuffix rfind rindex rjust rpartition rsplit splitlines swapcase title translate zfill").split(
      " ",
    ),
  list: "append clear copy count extend index insert pop remove reverse sort".split(" "),
  tuple: ["count", "index"],
  dict: "clear copy fromkeys pop popitem setdefault update".split(" "),
};

const DICTIONARY: Readonly<Record<string, (map: ReadonlyMap<Value, Value>) => Callable>> = {
  get: (map) => (given) => {
    const [key, fallback] = parameters(given, ["key", "default"], [null]);
    return map.has(key) ? map.get(key) : fallback;
  },
  items: (map) => () => new View(Array.from(map, ([key, value]) => new Tuple([key, value])), "dict_items"),
  keys: (map) => () => new View([...map.keys()], "dict_keys"),
  values: (map) => () => new View([...map.values()], "dict_values"),
};

function textMethod(text: string, name: string, budget: Budget): Callable | undefined {
  if (!Object.hasOwn(TEXT, name)) return undefined;
  return (given) => TEXT[name](text, given.positional.map(checkArgument), budget, given.named);
}

function checkArgument(value: Value): Value {
  if (value === undefined) throw new TypeError("an argument is undefined");
  return value;
}

type TextMethod = (text: string, given: readonly Value[], budget: Budget, named: ReadonlyMap<string, Value>) => Value;

const TEXT: Readonly<Record<string, TextMethod>> = {
  capitalize: (text) => capitalize(text),
  lower: (text) => text.toLowerCase(),
  upper: (text) => text.toUpperCase(),
  strip: (text, [characters]) => stripSides(text, characters, strip, true, true),
  lstrip: (text, [characters]) => stripSides(text, characters, stripStart, true, false),
  rstrip: (text, [characters]) => stripSides(text, characters, stripEnd, false, true),
  startswith: (text, given) => anyOf(given, (part) => text.startsWith(part)),
  endswith: (text, given) => anyOf(given, (part) => text.endsWith(part)),
  replace: (text, given, budget, named) => {
    const [old, replacement, count] = parameters({ positional: given, named }, ["old", "new", "count"], [-1]);
    return replaceText(text, asText(old), asText(replacement), asCount(count), budget);
  },
  split: (text, given, _, named) => {
    const [separator, count] = parameters({ positional: given, named }, ["sep", "maxsplit"], [null, -1]);
    return separator === null ? splitSpaces(text, asCount(count)) : splitText(text, asText(separator), asCount(count));
  },
  join: (text, [items], budget) => joinTexts(text, itemsOf(items).map(asText), budget),
};

function asText(value: Value): string {
  if (typeof value !== "string") throw new TypeError(`an argument is a ${typeName(value)}, must be a str`);
  return value;
}

function asSeparator(value: Value): string {
  const text = asText(value);
  if (text === "") throw new RangeError("the separator is empty");
  return text;
}

/** A largest number of times; a negative one is none. */
function asCount(value: Value): number {
  if (typeof value !== "number") throw new TypeError(`a count is a ${typeName(value)}, must be an int`);
  return value < 0 ? Infinity : whole(value);
}

function anyOf(given: readonly Value[], test: (part: string) => boolean): boolean {
  if (given.length !== 1) throw new TypeError(`there are ${given.length} arguments, must be one`);
  const [parts] = given;
  return parts instanceof Tuple ? parts.items.map(asText).some(test) : test(asText(parts));
}

function stripSides(
  text: string,
  characters: Value,
  spaces: (text: string) => string,
  left: boolean,
  right: boolean,
): string {
  if (characters === undefined || characters === null) return spaces(text);
  const stripped = new Set(asText(characters));
  const parts = Array.from(text);
  let [start, end] = [0, parts.length];
  while (left && start < end && stripped.has(parts[start])) start++;
  while (right && end > start && stripped.has(parts[end - 1])) end--;
  return parts.slice(start, end).join("");
}

/** str.join() */
export function joinTexts(separator: string, parts: readonly string[], budget: Budget): string {
  budget.spendText(parts.reduce((sum, { length }) => sum + length + separator.length, 0));
  return parts.join(separator);
}

/** str.replace(); an empty text is between all characters. */
export function replaceText(text: string, old: string, replacement: string, count: number, budget: Budget): string {
  const parts = old === "" ? ["", ...text, ""] : text.split(old);
  const places = Math.min(count, parts.length - 1);
  budget.spendText(text.length + places * replacement.length);
  const rest = old === "" && places < parts.length - 1 ? parts.slice(places).join("") : parts.slice(places).join(old);
  return [...parts.slice(0, places), rest].join(replacement);
}

function splitText(text: string, separator: string, count: number): string[] {
  const parts = text.split(asSeparator(separator));
  return parts.length - 1 <= count ? parts : [...parts.slice(0, count), parts.slice(count).join(separator)];
}

function splitSpaces(text: string, count: number): string[] {
  const words = Array.from(text.matchAll(WORDS));
  const parts = words.slice(0, count).map(([word]) => word);
  return words.length > count ? [...parts, text.slice(words[count].index)] : parts;
}
