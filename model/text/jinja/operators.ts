// Arithmetic of templates, with Python's rules.
import type { Budget } from "./budget.ts";
import { Float, itemsOf, numberOf, Tuple, typeName, type Value, whole } from "./value.ts";

/** -value or +value @throws {TypeError} for what is no number */
export function negative(value: Value, isNegative: boolean): Value {
  const number = numberOf(value);
  if (number === undefined) throw new TypeError(`a ${typeName(value)} has no sign`);
  const signed = isNegative ? -number : number;
  return value instanceof Float ? new Float(signed) : whole(signed);
}

const NUMBERS: Readonly<Record<string, (a: number, b: number) => number>> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "//": (a, b) => Math.floor(a / b),
  "%": (a, b) => a - b * Math.floor(a / b),
  "**": (a, b) => a ** b,
};

/** Adds, multiplies, ... @throws {TypeError} where Python fails */
export function arithmetic(operator: string, a: Value, b: Value, budget: Budget): Value {
  const [left, right] = [numberOf(a), numberOf(b)];
  if (left !== undefined && right !== undefined && Object.hasOwn(NUMBERS, operator)) {
    if (right === 0 && ["/", "//", "%"].includes(operator)) throw new RangeError("division by zero");
    const result = NUMBERS[operator](left, right);
    const isFloat = a instanceof Float || b instanceof Float || operator === "/" || (operator === "**" && right < 0);
    if (isFloat && !Number.isFinite(result)) throw new RangeError(`${left} ${operator} ${right} is no finite number`);
    return isFloat ? new Float(result) : whole(result);
  }
  if (operator === "+" && typeof a === "string" && typeof b === "string") {
    budget.spendText(a.length + b.length);
    return a + b;
  }
  if (operator === "+" && ((Array.isArray(a) && Array.isArray(b)) || (a instanceof Tuple && b instanceof Tuple))) {
    const items = [...itemsOf(a), ...itemsOf(b)];
    budget.spend(items.length);
    return a instanceof Tuple ? new Tuple(items) : items;
  }
  const times = left ?? right;
  if (operator === "*" && typeof times === "number") {
    return repeated(left === undefined ? a : b, Math.max(0, times), budget);
  }
  throw new TypeError(`${typeName(a)} ${operator} ${typeName(b)} is not known here`);
}

/** A text or list, so many times. */
function repeated(value: Value, times: number, budget: Budget): Value {
  if (typeof value === "string") {
    budget.spendText(value.length * times);
    return value.repeat(whole(times));
  }
  if (!Array.isArray(value) && !(value instanceof Tuple)) {
    throw new TypeError(`a ${typeName(value)} cannot be repeated`);
  }
  const items = itemsOf(value);
  budget.spend(items.length * times);
  const all = Array.from({ length: whole(times) }, () => items).flat();
  return value instanceof Tuple ? new Tuple(all) : all;
}
