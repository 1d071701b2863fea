// Expressions of templates.
import { applyFilter, contains, passesTest } from "./filters.ts";
import { methodOf } from "./methods.ts";
import type { Node } from "./node.ts";
import { arithmetic, negative } from "./operators.ts";
import { lookUp, type Scope } from "./scope.ts";
import { toText } from "./text.ts";
import {
  type Arguments,
  compare,
  equals,
  Float,
  isTrue,
  itemsOf,
  Namespace,
  Safe,
  Tuple,
  typeName,
  type Value,
  View,
  whole,
} from "./value.ts";

/** Value of an expression. @throws {Error} where jinja2 fails, or where what it does isn't known */
export function evaluate(node: Node, scope: Scope): Value {
  scope.budget.spend(1);
  const value = Object.hasOwn(EXPRESSIONS, node.type) ? EXPRESSIONS[node.type](node, scope) : unknownNode(node);
  if (typeof value === "string") scope.budget.spendText(value.length);
  return value;
}

function unknownNode({ type }: Node): never {
  throw new TypeError(`${type} is not known here`);
}

const all = (nodes: unknown, scope: Scope) => (nodes as readonly Node[]).map((node) => evaluate(node, scope));

const EXPRESSIONS: Readonly<Record<string, (node: Node, scope: Scope) => Value>> = {
  IntegerLiteral: ({ value }) => whole(value as number),
  FloatLiteral: ({ value }) => new Float(value as number),
  StringLiteral: ({ value }) => value as string,
  ArrayLiteral: ({ value }, scope) => all(value, scope),
  TupleLiteral: ({ value }, scope) => new Tuple(all(value, scope)),
  ObjectLiteral: ({ value }, scope) =>
    new Map(
      Array.from(value as Map<Node, Node>, ([key, item]) => [asKey(evaluate(key, scope)), evaluate(item, scope)]),
    ),
  Identifier: ({ value }, scope) => lookUp(scope, value as string),
  UnaryExpression: ({ operator, argument }, scope) => {
    const value = evaluate(argument!, scope);
    return operator!.value === "not" ? !isTrue(value) : negative(value, operator!.value === "-");
  },
  BinaryExpression: evaluateBinary,
  Ternary: ({ condition, trueExpr, falseExpr }, scope) =>
    evaluate(isTrue(evaluate(condition!, scope)) ? trueExpr! : falseExpr!, scope),
  SelectExpression: ({ lhs, test }, scope) => isTrue(evaluate(test!, scope)) ? evaluate(lhs!, scope) : undefined,
  TestExpression: ({ operand, test, negate }, scope) =>
    passesTest(test!.value as string, evaluate(operand!, scope), []) !== negate,
  FilterExpression: ({ operand, filter }, scope) => filtered(evaluate(operand!, scope), filter!, scope),
  CallExpression: ({ callee, args }, scope) => callFunction(evaluate(callee!, scope), evaluateArguments(args!, scope)),
  MemberExpression: evaluateMember,
};

/** Applies the filter that a node names. */
export function filtered(value: Value, filter: Node, scope: Scope): Value {
  const [{ value: name }, given] = filter.type === "CallExpression"
    ? [filter.callee!, evaluateArguments(filter.args!, scope)]
    : [filter, { positional: [], named: new Map() }];
  return applyFilter(name as string, value, given, scope.budget);
}

/** Calls what is a function. @throws {TypeError} where it isn't one */
function callFunction(callee: Value, given: Arguments): Value {
  if (typeof callee !== "function") throw new TypeError(`a ${typeName(callee)} cannot be called`);
  return callee(given);
}

function evaluateArguments(nodes: readonly Node[], scope: Scope): Arguments {
  const positional: Value[] = [];
  const named = new Map<string, Value>();
  const name = (key: Value, value: Value) => {
    if (typeof key !== "string" || named.has(key)) {
      throw new TypeError("a named argument is there twice, or has no name");
    }
    named.set(key, value);
  };
  for (const node of nodes) {
    if (node.type === "SpreadExpression") positional.push(...itemsOf(evaluate(node.argument!, scope)));
    else if (node.type === "KeywordArgumentExpression") {
      name(node.key!.value as string, evaluate(node.value as Node, scope));
    } else if (node.type === "KeywordSpreadExpression") {
      const map = evaluate(node.argument!, scope);
      if (!(map instanceof Map)) throw new TypeError("** must be before a dict");
      for (const [key, value] of map) name(key, value);
    } else positional.push(evaluate(node, scope));
  }
  return { positional, named };
}

const COMPARISONS: Readonly<Record<string, (a: Value, b: Value) => boolean>> = {
  "==": equals,
  "!=": (a, b) => !equals(a, b),
  "<": (a, b) => compare(a, b) < 0,
  ">": (a, b) => compare(a, b) > 0,
  "<=": (a, b) => compare(a, b) <= 0,
  ">=": (a, b) => compare(a, b) >= 0,
  "in": (a, b) => contains(b, a),
  "not in": (a, b) => !contains(b, a),
};

function evaluateBinary({ operator, left, right }: Node, scope: Scope): Value {
  const { value: name } = operator!;
  const first = evaluate(left!, scope);
  if (name === "and" || name === "or") return isTrue(first) === (name === "and") ? evaluate(right!, scope) : first;
  const second = evaluate(right!, scope);
  if (Object.hasOwn(COMPARISONS, name)) {
    // Of comparisons in a row each compares neighbours; one in brackets is marked as such (template.ts).
    const isInRow = left!.type === "BinaryExpression" && Object.hasOwn(COMPARISONS, left!.operator!.value);
    if (!isInRow) return COMPARISONS[name](first, second);
    return first && COMPARISONS[name](evaluate(left!.right!, scope), second);
  }
  if (name === "~") {
    if (first instanceof Safe || second instanceof Safe) throw new TypeError("what is safe must not be joined here");
    const texts = [toText(first), toText(second)];
    scope.budget.spendText(texts[0].length + texts[1].length);
    return texts.join("");
  }
  return arithmetic(name, first, second, scope.budget);
}

function asKey(value: Value): Value {
  if (typeof value !== "string" && typeof value !== "number") {
    throw new TypeError(`a key is a ${typeName(value)}, must be a str or int here`);
  }
  return value;
}

function evaluateMember({ object, property, computed }: Node, scope: Scope): Value {
  const value = evaluate(object!, scope);
  if (value instanceof Safe) throw new TypeError("what is safe has no attributes here");
  if (computed && property!.type === "SliceExpression") return sliceOf(value, property!, scope);
  const isName = !computed && property!.type === "Identifier";
  const key = isName ? property!.value as string : evaluate(property!, scope);
  if (value === undefined) throw new TypeError(`${toText(key)} is asked of what is undefined`);
  const method = () => typeof key === "string" ? methodOf(value, key, scope.budget) : undefined;
  // A dot asks for an attribute first, brackets for an item.
  if (isName) return method() ?? itemAt(value, key);
  const item = itemAt(value, key);
  return item === undefined ? method() : item;
}

function itemAt(value: Value, key: Value): Value {
  if (value instanceof Map) return value.get(key);
  if (value instanceof Namespace) return typeof key === "string" ? value.fields.get(key) : undefined;
  if (typeof key === "string" || value === null || typeof value === "number" || typeof value === "boolean") {
    return undefined;
  }
  if (value instanceof View) throw new TypeError(`a ${value.name ?? "generator"} has no items by number here`);
  return typeof key === "number" || typeof key === "boolean" ? itemsOf(value).at(Number(key)) : undefined;
}

function sliceOf(value: Value, { start, stop, step }: Node, scope: Scope): Value {
  if (value instanceof View || value instanceof Map || value === undefined) {
    throw new TypeError(`a ${typeName(value)} cannot be cut`);
  }
  const items = itemsOf(value);
  const [from, to, by] = [start, stop, step].map((node) => asBound(node && evaluate(node, scope)));
  if (by === 0) throw new RangeError("the step of a slice is 0");
  const stride = by ?? 1;
  const place = (bound: number | undefined, atStart: boolean) => {
    const [low, high] = stride > 0 ? [0, items.length] : [-1, items.length - 1];
    if (bound === undefined) return atStart === stride > 0 ? low : high;
    return Math.min(high, Math.max(low, bound < 0 ? bound + items.length : bound));
  };
  const [first, end] = [place(from, true), place(to, false)];
  const taken: Value[] = [];
  for (let at = first; stride > 0 ? at < end : at > end; at += stride) taken.push(items[at]);
  scope.budget.spend(taken.length / 16);
  if (typeof value === "string") return taken.join("");
  return value instanceof Tuple ? new Tuple(taken) : taken;
}

function asBound(value: Value): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number") throw new TypeError(`a bound of a slice is a ${typeName(value)}, must be an int`);
  return value;
}
