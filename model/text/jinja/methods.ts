/**
 * Methods of texts, dictionaries and lists, with Python's rules; those that change a value are refused there too.
 *
 * @module
 */
import { capitalize, splitLines, strip, stripEnd, stripStart, titleCase, WORDS } from "../../host/python_text.ts";
import type { Budget } from "./budget.ts";
import { parameters } from "./parameters.ts";
import { type Callable, equals, itemsOf, Tuple, typeName, type Value, View, whole } from "./value.ts";

/** A method of a value; undefined where it has none of this name. */
export function methodOf(value: Value, name: string, budget: Budget): Callable | undefined {
  if (typeof value === "string") return textMethod(value, name, budget);
  if (value instanceof Map && Object.hasOwn(DICTIONARY, name)) return DICTIONARY[name](value);
  const items = Array.isArray(value) ? value : value instanceof Tuple ? value.items : undefined;
  return items && Object.hasOwn(LIST, name) ? LIST[name](items) : undefined;
}

const DICTIONARY: Readonly<Record<string, (map: ReadonlyMap<Value, Value>) => Callable>> = {
  get: (map) => (given) => {
    const [key, fallback] = parameters(given, ["key", "default"], [null]);
    return map.has(key) ? map.get(key) : fallback;
  },
  items: (map) => () => new View(Array.from(map, ([key, value]) => new Tuple([key, value])), "dict_items"),
  keys: (map) => () => new View([...map.keys()], "dict_keys"),
  values: (map) => () => new View([...map.values()], "dict_values"),
  copy: (map) => () => new Map(map),
};

const LIST: Readonly<Record<string, (items: readonly Value[]) => Callable>> = {
  count: (items) => ({ positional: [wanted] }) => items.filter((item) => equals(item, wanted)).length,
  index: (items) => ({ positional: [wanted] }) => found(items.findIndex((item) => equals(item, wanted))),
};

function found(index: number): number {
  if (index < 0) throw new RangeError("what is looked for isn't there");
  return index;
}

function textMethod(text: string, name: string, budget: Budget): Callable | undefined {
  if (!Object.hasOwn(TEXT, name)) return undefined;
  return (given) => TEXT[name](text, given.positional.map(checkArgument), budget, given.named);
}

function checkArgument(value: Value): Value {
  if (value === undefined) throw new TypeError("an argument is undefined");
  return value;
}

type TextMethod = (text: string, given: readonly Value[], budget: Budget, named: ReadonlyMap<string, Value>) => Value;

const CASED = /[\p{Lu}\p{Ll}\p{Lt}]/u;
const every = (pattern: RegExp): TextMethod => (text) =>
  text !== "" && Array.from(text).every((part) => pattern.test(part));

const TEXT: Readonly<Record<string, TextMethod>> = {
  capitalize: (text) => capitalize(text),
  lower: (text) => text.toLowerCase(),
  upper: (text) => text.toUpperCase(),
  title: (text) => {
    let within = false;
    return Array.from(text, (character) => {
      const changed = within ? character.toLowerCase() : titleCase(character);
      within = CASED.test(character);
      return changed;
    }).join("");
  },
  strip: (text, [characters]) => stripSides(text, characters, strip, true, true),
  lstrip: (text, [characters]) => stripSides(text, characters, stripStart, true, false),
  rstrip: (text, [characters]) => stripSides(text, characters, stripEnd, false, true),
  startswith: (text, given) => anyOf(given, (part) => text.startsWith(part)),
  endswith: (text, given) => anyOf(given, (part) => text.endsWith(part)),
  removeprefix: (text, [part]) => text.startsWith(asText(part)) ? text.slice(asText(part).length) : text,
  removesuffix: (text, [part]) =>
    asText(part) !== "" && text.endsWith(asText(part)) ? text.slice(0, -asText(part).length) : text,
  find: (text, given) => position(text, given, (part) => text.indexOf(part)),
  rfind: (text, given) => position(text, given, (part) => text.lastIndexOf(part)),
  index: (text, given) => found(position(text, given, (part) => text.indexOf(part))),
  count: (text, given) => {
    const part = one(given);
    return part === "" ? Array.from(text).length + 1 : text.split(part).length - 1;
  },
  replace: (text, given, budget, named) => {
    const [old, replacement, count] = parameters({ positional: given, named }, ["old", "new", "count"], [-1]);
    return replaceText(text, asText(old), asText(replacement), asCount(count), budget);
  },
  split: (text, given, _, named) => {
    const [separator, count] = parameters({ positional: given, named }, ["sep", "maxsplit"], [null, -1]);
    return separator === null ? splitSpaces(text, asCount(count)) : splitText(text, asText(separator), asCount(count));
  },
  rsplit: (text, given, _, named) => {
    const [separator, count] = parameters({ positional: given, named }, ["sep", "maxsplit"], [null, -1]);
    if (separator === null) throw new TypeError("rsplit needs a separator here");
    const parts = text.split(asSeparator(separator));
    const kept = asCount(count);
    return parts.length - 1 <= kept
      ? parts
      : [parts.slice(0, parts.length - kept).join(asText(separator)), ...parts.slice(parts.length - kept)];
  },
  splitlines: (text, given) => {
    if (given.length > 0) throw new TypeError("splitlines takes no argument here");
    return splitLines(text);
  },
  partition: (text, given) => partition(text, asSeparator(given[0]), text.indexOf(asText(given[0])), [text, "", ""]),
  rpartition: (text, given) =>
    partition(text, asSeparator(given[0]), text.lastIndexOf(asText(given[0])), ["", "", text]),
  join: (text, [items], budget) => joinTexts(text, itemsOf(items).map(asText), budget),
  isdigit: every(/[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]/u),
  isdecimal: every(/\p{Nd}/u),
  isalpha: every(/\p{L}/u),
  isalnum: every(/[\p{L}\p{N}]/u),
  isspace: (text) => text !== "" && strip(text) === "",
  isupper: (text) => CASED.test(text) && text === text.toUpperCase(),
  islower: (text) => CASED.test(text) && text === text.toLowerCase(),
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

function one(given: readonly Value[]): string {
  if (given.length !== 1) throw new TypeError(`there are ${given.length} arguments, must be one`);
  return asText(given[0]);
}

function anyOf(given: readonly Value[], test: (part: string) => boolean): boolean {
  if (given.length !== 1) throw new TypeError(`there are ${given.length} arguments, must be one`);
  const [parts] = given;
  return parts instanceof Tuple ? parts.items.map(asText).some(test) : test(asText(parts));
}

function position(text: string, given: readonly Value[], find: (part: string) => number): number {
  const unit = find(one(given));
  return unit < 0 ? -1 : Array.from(text.slice(0, unit)).length;
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

function partition(text: string, separator: string, at: number, whole: readonly string[]): Tuple {
  return new Tuple(at < 0 ? whole : [text.slice(0, at), separator, text.slice(at + separator.length)]);
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
