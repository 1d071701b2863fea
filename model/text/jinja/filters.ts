// Filters and tests of Jinja, as jinja2 and transformers have them.
import { capitalize, splitLines, strip } from "../../host/python_text.ts";
import type { Budget } from "./budget.ts";
import { joinTexts, methodOf, replaceText } from "./methods.ts";
import { parameters } from "./parameters.ts";
import { toJson, toText } from "./text.ts";
import {
  type Arguments,
  compare,
  equals,
  Float,
  isTrue,
  itemsOf,
  lengthOf,
  Namespace,
  numberOf,
  Safe,
  Tuple,
  typeName,
  type Value,
  View,
  whole,
} from "./value.ts";

/** A filter: the value before the bar, and what stands in the brackets behind its name. */
type Filter = (value: Value, given: Arguments, budget: Budget) => Value;

/** Applies a filter. @throws {TypeError} for one that isn't known, or where Python's fails */
export function applyFilter(name: string, value: Value, given: Arguments, budget: Budget): Value {
  // Tests with arguments come as filters (template.ts).
  const [, not, test] = /^is (not )?(.*)$/.exec(name) ?? [];
  if (test !== undefined) return passesTest(test, value, given.positional) === (not === undefined);
  if (!Object.hasOwn(FILTERS, name)) throw new TypeError(`filter ${name} is not known here`);
  return FILTERS[name](value, given, budget);
}

/** Whether a value passes a test. @throws {TypeError} for a test that isn't known */
export function passesTest(name: string, value: Value, others: readonly Value[]): boolean {
  if (!Object.hasOwn(TESTS, name)) throw new TypeError(`test ${name} is not known here`);
  return TESTS[name](value, others);
}

const plain = (work: (value: Value, budget: Budget) => Value): Filter => (value, given, budget) => {
  parameters(given, []);
  return work(value, budget);
};

const textMethod = (name: string): Filter =>
  plain((value, budget) => methodOf(toText(value), name, budget)!({ positional: [], named: new Map() }));

const defaultTo: Filter = (value, given) => {
  const [fallback, replacesFalse] = parameters(given, ["default_value", "boolean"], ["", false]);
  return value === undefined || (isTrue(replacesFalse) && !isTrue(value)) ? fallback : value;
};

const FILTERS: Readonly<Record<string, Filter>> = {
  capitalize: plain((value) => capitalize(toText(value))),
  count: plain(lengthOf),
  default: defaultTo,
  dictsort: (value, given) => {
    const [caseSensitive, by, reverse] = parameters(given, ["case_sensitive", "by", "reverse"], [false, "key", false]);
    if (!(value instanceof Map)) throw new TypeError(`dictsort is of a ${typeName(value)}, must be of a dict`);
    const pairs = Array.from(value, ([key, item]) => new Tuple([key, item]));
    return sorted(pairs, (pair) => folded((pair as Tuple).items[by === "value" ? 1 : 0], caseSensitive), reverse);
  },
  first: plain((value) => itemsOf(value)[0]),
  indent: (value, given, budget) => {
    const [width, first, blank] = parameters(given, ["width", "first", "blank"], [4, false, false]);
    if (typeof value !== "string") throw new TypeError(`indent is of a ${typeName(value)}, must be of a str`);
    if (typeof width === "number") budget.spendText(width);
    const space = typeof width === "number" ? " ".repeat(Math.max(0, width)) : toText(width);
    const lines = splitLines(`${value}\n`);
    budget.spendText(value.length + lines.length * space.length);
    const indented = lines.map((line, i) => i > 0 && (line !== "" || isTrue(blank)) ? space + line : line);
    return (isTrue(first) ? space : "") + indented.join("\n");
  },
  int: (value, given) => {
    const [fallback, base] = parameters(given, ["default", "base"], [0, 10]);
    if (base !== 10) throw new TypeError("the base of int must be 10 here");
    const number = readNumber(value);
    return number === undefined || !Number.isFinite(number) ? fallback : whole(Math.trunc(number));
  },
  items: plain((value) => {
    if (value === undefined) return new View([], undefined, false);
    if (!(value instanceof Map)) throw new TypeError(`items is of a ${typeName(value)}, must be of a dict`);
    return new View(Array.from(value, ([key, item]) => new Tuple([key, item])), undefined, false);
  }),
  join: (value, given, budget) => {
    const [separator, attribute] = parameters(given, ["d", "attribute"], ["", null]);
    const items = itemsOf(value).map((item) => attributeOf(item, attribute));
    if (items.some((item) => item instanceof Safe)) throw new TypeError("what is safe must not be joined here");
    return joinTexts(toText(separator), items.map(toText), budget);
  },
  last: plain((value) => itemsOf(value).at(-1)),
  length: plain(lengthOf),
  list: plain((value) => [...itemsOf(value)]),
  lower: textMethod("lower"),
  map: (value, { positional, named }, budget) => {
    const [name, ...rest] = positional;
    if (name === undefined) {
      const [attribute, fallback] = parameters({ positional, named }, ["attribute", "default"], [undefined]);
      return generated(itemsOf(value).map((item) => withFallback(attributeOf(item, attribute), fallback)));
    }
    return generated(
      itemsOf(value).map((item) => applyFilter(toText(name), item, { positional: rest, named }, budget)),
    );
  },
  max: (value, given) => extreme(value, given, 1),
  min: (value, given) => extreme(value, given, -1),
  reject: (value, given) => chosen(value, given, false, false),
  rejectattr: (value, given) => chosen(value, given, false, true),
  replace: (value, given, budget) => {
    const [old, replacement, count] = parameters(given, ["old", "new", "count"], [null]);
    if (value instanceof Safe) throw new TypeError("what is safe must not be replaced here");
    const times = count === null || needNumber(count) < 0 ? Infinity : needNumber(count);
    return replaceText(toText(value), toText(old), toText(replacement), times, budget);
  },
  reverse: plain((value) =>
    typeof value === "string" ? Array.from(value).reverse().join("") : generated(itemsOf(value).toReversed())
  ),
  safe: plain((value) => new Safe(toText(value))),
  select: (value, given) => chosen(value, given, true, false),
  selectattr: (value, given) => chosen(value, given, true, true),
  sort: (value, given) => {
    const [reverse, caseSensitive, attribute] = parameters(given, ["reverse", "case_sensitive", "attribute"], [
      false,
      false,
      null,
    ]);
    return sorted(itemsOf(value), (item) => folded(attributeOf(item, attribute), caseSensitive), reverse);
  },
  string: plain(toText),
  title: plain((value) => {
    const words = toText(value).split(/([-\s({[<]+)/);
    return words.map((word) => {
      const [first = "", ...rest] = word;
      return first.toUpperCase() + rest.join("").toLowerCase();
    }).join("");
  }),
  tojson: (value, given, budget) => {
    const [ascii, indent, separators, sortKeys] = parameters(
      given,
      ["ensure_ascii", "indent", "separators", "sort_keys"],
      [false, null, null, false],
    );
    if (typeof indent === "number") budget.spendText(indent * 64);
    const space = typeof indent === "number"
      ? " ".repeat(Math.max(0, indent))
      : indent === null
      ? null
      : toText(indent);
    const [item, key] = separators === null ? [space === null ? ", " : ",", ": "] : itemsOf(separators).map(toText);
    const text = toJson(value, {
      indent: space,
      separators: [item, key],
      ascii: isTrue(ascii),
      sortKeys: isTrue(sortKeys),
    });
    budget.spendText(text.length);
    return text;
  },
  trim: (value, given, budget) => {
    const [characters] = parameters(given, ["chars"], [null]);
    return methodOf(toText(value), "strip", budget)!({ positional: [characters], named: new Map() });
  },
  unique: (value, given) => {
    const [caseSensitive, attribute] = parameters(given, ["case_sensitive", "attribute"], [false, null]);
    const kept: Value[] = [];
    const keys: Value[] = [];
    for (const item of itemsOf(value)) {
      const key = folded(attributeOf(item, attribute), caseSensitive);
      if (Array.isArray(key) || key instanceof Map) throw new TypeError(`a ${typeName(key)} cannot be a key`);
      if (keys.some((known) => equals(known, key))) continue;
      keys.push(key);
      kept.push(item);
    }
    return generated(kept);
  },
  upper: textMethod("upper"),
};

/** What Python gives as a generator: it has no length and cannot be printed. */
function generated(items: readonly Value[]): View {
  return new View(items, undefined, false);
}

function needNumber(value: Value): number {
  const number = numberOf(value);
  if (number === undefined) throw new TypeError(`a ${typeName(value)} is no number`);
  return number;
}

function withFallback(value: Value, fallback: Value): Value {
  return value === undefined && fallback !== null ? fallback : value;
}

/** int() or float() of a value; undefined where it is no number. */
function readNumber(value: Value): number | undefined {
  if (value === undefined) throw new TypeError("what is undefined is no number");
  if (typeof value !== "string") return numberOf(value);
  const stripped = strip(value);
  return /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+)?|\.\d+)(?:[eE][+-]?\d+)?$/.test(stripped)
    ? Number(stripped.replaceAll("_", ""))
    : undefined;
}

/** An item's attribute by its path; the item itself where there is none. */
function attributeOf(item: Value, attribute: Value): Value {
  if (attribute === null || attribute === undefined) return item;
  return toText(attribute).split(".").reduce<Value>((value, part) => {
    if (value === undefined) throw new TypeError(`attribute ${toText(attribute)} goes through what is undefined`);
    if (/^\d+$/.test(part)) return itemsOf(value)[Number(part)];
    return value instanceof Map ? value.get(part) : value instanceof Namespace ? value.fields.get(part) : undefined;
  }, item);
}

function folded(value: Value, caseSensitive: Value): Value {
  return typeof value === "string" && !isTrue(caseSensitive) ? value.toLowerCase() : value;
}

function sorted(items: readonly Value[], keyOf: (item: Value) => Value, reverse: Value): Value[] {
  const sign = isTrue(reverse) ? -1 : 1;
  return items.map((item) => ({ item, key: keyOf(item) })).sort((a, b) => sign * compare(a.key, b.key)).map((
    { item },
  ) => item);
}

function extreme(value: Value, given: Arguments, sign: number): Value {
  const [caseSensitive, attribute] = parameters(given, ["case_sensitive", "attribute"], [false, null]);
  const key = (item: Value) => folded(attributeOf(item, attribute), caseSensitive);
  const items = itemsOf(value);
  return items.length === 0
    ? undefined
    : items.reduce((best, item) => sign * compare(key(item), key(best)) > 0 ? item : best);
}

/** Items that pass a test, or fail it; of their attribute where that is given first. */
function chosen(value: Value, { positional, named }: Arguments, wanted: boolean, byAttribute: boolean): View {
  if (named.size > 0) throw new TypeError("tests take no named argument here");
  const [attribute, [test, ...others]] = byAttribute ? [positional[0], positional.slice(1)] : [null, positional];
  return generated(
    itemsOf(value).filter((item) => {
      const tested = attributeOf(item, attribute);
      return (test === undefined ? isTrue(tested) : passesTest(toText(test), tested, others)) === wanted;
    }),
  );
}

type Test = (value: Value, others: readonly Value[]) => boolean;

const equalTo: Test = (value, [other]) => equals(value, other);
const ordered = (test: (order: number) => boolean): Test => (value, [other]) => test(compare(value, other));
const TESTS: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === "boolean",
  // What is undefined can be called and has a length, though both fail or give nothing.
  callable: (value) => value === undefined || typeof value === "function",
  defined: (value) => value !== undefined,
  "<": ordered((order) => order < 0),
  "<=": ordered((order) => order <= 0),
  "==": equalTo,
  "!=": (value, [other]) => !equals(value, other),
  ">": ordered((order) => order > 0),
  ">=": ordered((order) => order >= 0),
  eq: equalTo,
  equalto: equalTo,
  even: (value) => needNumber(value) % 2 === 0,
  false: (value) => value === false,
  float: (value) => value instanceof Float,
  ge: ordered((order) => order >= 0),
  gt: ordered((order) => order > 0),
  in: (value, [items]) => contains(items, value),
  integer: (value) => typeof value === "number",
  iterable: (value) => value === undefined || canBeGoneThrough(value),
  le: ordered((order) => order <= 0),
  lt: ordered((order) => order < 0),
  mapping: (value) => value instanceof Map,
  ne: (value, [other]) => !equals(value, other),
  none: (value) => value === null,
  number: (value) => numberOf(value) !== undefined,
  odd: (value) => Math.abs(needNumber(value) % 2) === 1,
  sameas: (value, [other]) => value === other,
  sequence: (value) => value === undefined || (canBeGoneThrough(value) && !(value instanceof View)),
  string: (value) => typeof value === "string" || value instanceof Safe,
  true: (value) => value === true,
  undefined: (value) => value === undefined,
};

function canBeGoneThrough(value: Value): boolean {
  return typeof value === "string" || Array.isArray(value) || value instanceof Map || value instanceof Tuple ||
    value instanceof View;
}

/** value in container @throws {TypeError} where Python's fails */
export function contains(container: Value, value: Value): boolean {
  if (typeof container === "string") {
    if (typeof value !== "string") throw new TypeError(`a ${typeName(value)} cannot be in a str`);
    return container.includes(value);
  }
  if (container instanceof Map && (Array.isArray(value) || value instanceof Map)) {
    throw new TypeError(`a ${typeName(value)} cannot be a key`);
  }
  return itemsOf(container).some((item) => equals(item, value));
}
