// Values of chat templates: Python's, as far as templates use them. None is null and an undefined name is undefined;
// numbers are whole unless they are a {@linkcode Float}; texts are counted in code points.

export type Value =
  | undefined
  | null
  | boolean
  | number
  | string
  | Float
  | Tuple
  | View
  | Safe
  | Namespace
  | Callable
  | readonly Value[]
  | ReadonlyMap<Value, Value>;

export class Float {
  constructor(readonly value: number) {}
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** Something to go through: a dictionary's items, a range, what a filter goes through. */
export class View {
  /**
   * @param items what it gives
   * @param name how Python prints it, where that can be told
   * @param isSized whether it has a length
   */
  constructor(readonly items: readonly Value[], readonly name?: string, readonly isSized: boolean = true) {}
}

/** A text that went through the filter `safe`: it can be given out, while with other texts it would escape those. */
export class Safe {
  constructor(readonly text: string) {}
}

/** What `namespace()` gives, and `loop`. */
export class Namespace {
  constructor(readonly fields: Map<string, Value>) {}
}

/** Arguments of a call, the named ones by name. */
export interface Arguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

export type Callable = (given: Arguments) => Value;

/** Name of a value's type, as Python has it. */
export function typeName(value: Value): string {
  if (value === undefined) return "Undefined";
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "int";
  if (typeof value === "string") return "str";
  if (Array.isArray(value)) return "list";
  if (value instanceof Map) return "dict";
  return value instanceof Function ? "function" : value.constructor.name.toLowerCase();
}

/** bool(value) */
export function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  if (value instanceof Tuple || (value instanceof View && value.isSized)) return value.items.length > 0;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Safe) return value.text !== "";
  return Boolean(value);
}

/** The number of a number or a bool; undefined of anything else. */
export function numberOf(value: Value): number | undefined {
  if (value instanceof Float) return value.value;
  return typeof value === "number" || typeof value === "boolean" ? Number(value) : undefined;
}

/** A whole number. @throws {RangeError} beyond those that are exact here */
export function whole(value: number): number {
  if (!Number.isSafeInteger(value)) throw new RangeError(`a whole number is ${value}, must be below 2^53`);
  return value + 0;
}

/** Items that a loop goes through. @throws {TypeError} where there are none */
export function itemsOf(value: Value): readonly Value[] {
  if (value === undefined) return [];
  if (typeof value === "string") return Array.from(value);
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return [...value.keys()];
  if (value instanceof Tuple || value instanceof View) return value.items;
  throw new TypeError(`${typeName(value)} cannot be gone through`);
}

/** len(value) @throws {TypeError} where it has none */
export function lengthOf(value: Value): number {
  if (value instanceof View && !value.isSized) throw new TypeError("a generator has no length");
  return itemsOf(value).length;
}

/** value == other */
export function equals(a: Value, b: Value): boolean {
  const [left, right] = [numberOf(a), numberOf(b)];
  if (left !== undefined && right !== undefined) return left === right;
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && equals(value, b.get(key)));
  }
  const isList = Array.isArray(a) && Array.isArray(b);
  if (isList || (a instanceof Tuple && b instanceof Tuple)) {
    const [these, those] = [itemsOf(a), itemsOf(b)];
    return these.length === those.length && these.every((item, i) => equals(item, those[i]));
  }
  return a === b;
}

/** -1, 0 or 1 as a comes before, with or after b. @throws {TypeError} where Python has no order */
export function compare(a: Value, b: Value): number {
  const [left, right] = [numberOf(a), numberOf(b)];
  if (left !== undefined && right !== undefined) return left < right ? -1 : left > right ? 1 : 0;
  const isText = typeof a === "string" && typeof b === "string";
  const isList = Array.isArray(a) && Array.isArray(b);
  if (!isText && !isList && !(a instanceof Tuple && b instanceof Tuple)) {
    throw new TypeError(`${typeName(a)} and ${typeName(b)} have no order`);
  }
  const [these, those] = [itemsOf(a), itemsOf(b)];
  for (let i = 0; i < Math.min(these.length, those.length); i++) {
    if (equals(these[i], those[i])) continue;
    if (!isText) return compare(these[i], those[i]);
    return (these[i] as string).codePointAt(0)! - (those[i] as string).codePointAt(0)!;
  }
  return these.length - those.length;
}
