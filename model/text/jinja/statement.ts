// Statements of templates.
import { evaluate, filtered } from "./expression.ts";
import type { Node } from "./node.ts";
import { type Scope, within } from "./scope.ts";
import { toText } from "./text.ts";
import {
  type Arguments,
  type Callable,
  equals,
  isTrue,
  itemsOf,
  Namespace,
  Tuple,
  typeName,
  type Value,
} from "./value.ts";

/** How a block of statements ended: at its end, or to leave the loop or this turn of it. */
type Ending = "break" | "continue" | undefined;

export function renderBlock(nodes: readonly Node[], scope: Scope): string {
  const parts: string[] = [];
  if (run(nodes, scope, parts)) throw new SyntaxError("break and continue must be in a loop");
  return parts.join("");
}

function run(nodes: readonly Node[], scope: Scope, parts: string[]): Ending {
  for (const node of nodes) {
    scope.budget.spend(1);
    if (Object.hasOwn(STATEMENTS, node.type)) {
      const ending = STATEMENTS[node.type](node, scope, parts);
      if (ending) return ending;
    } else {
      const text = toText(evaluate(node, scope));
      scope.budget.spendText(text.length);
      parts.push(text);
    }
  }
  return undefined;
}

const STATEMENTS: Readonly<Record<string, (node: Node, scope: Scope, parts: string[]) => Ending>> = {
  Comment: () => undefined,
  Break: () => "break",
  Continue: () => "continue",
  If: ({ test, body, alternate }, scope, parts) =>
    run(isTrue(evaluate(test!, scope)) ? body! : alternate!, scope, parts),
  For: runLoop,
  Set: runSet,
  Macro: ({ name, args, body }, scope) => {
    scope.names.set(name!.value as string, createMacro(args!, body!, scope));
    return undefined;
  },
  FilterStatement: ({ filter, body }, scope, parts) => {
    parts.push(toText(filtered(renderBlock(body!, within(scope)), filter!, scope)));
    return undefined;
  },
};

function runLoop(node: Node, scope: Scope, parts: string[]): Ending {
  const { loopvar, body, defaultBlock } = node;
  const isFiltered = node.iterable!.type === "SelectExpression";
  const { lhs, test } = isFiltered ? node.iterable! : { lhs: node.iterable!, test: undefined };
  const turnOf = (item: Value) => {
    const turn = within(scope);
    assign(loopvar!, item, turn);
    return turn;
  };
  const items = itemsOf(evaluate(lhs!, scope)).filter((item) => !test || isTrue(evaluate(test, turnOf(item))));
  scope.budget.spend(items.length);
  const changed: { last?: readonly Value[] } = {};
  for (const [i, item] of items.entries()) {
    const turn = turnOf(item);
    turn.names.set("loop", describeTurn(items, i, changed));
    if (run(body!, turn, parts) === "break") return undefined;
  }
  return items.length === 0 ? run(defaultBlock!, within(scope), parts) : undefined;
}

function describeTurn(items: readonly Value[], i: number, changed: { last?: readonly Value[] }): Namespace {
  const fields: [string, Value][] = [
    ["index", i + 1],
    ["index0", i],
    ["revindex", items.length - i],
    ["revindex0", items.length - i - 1],
    ["first", i === 0],
    ["last", i === items.length - 1],
    ["length", items.length],
    ["depth", 1],
    ["depth0", 0],
    ["previtem", items[i - 1]],
    ["nextitem", items[i + 1]],
    ["cycle", ({ positional }) => positional[i % positional.length]],
    ["changed", ({ positional }) => {
      const isSame = changed.last !== undefined && equals(changed.last, positional);
      changed.last = positional;
      return !isSame;
    }],
  ];
  return new Namespace(new Map(fields));
}

function runSet({ assignee, value, body }: Node, scope: Scope): Ending {
  const given = value ? evaluate(value as Node, scope) : renderBlock(body!, within(scope));
  assign(assignee!, given, scope);
  return undefined;
}

/** Gives names their values; a tuple of names takes the items of one. */
function assign(target: Node, value: Value, scope: Scope): void {
  if (target.type === "Identifier") scope.names.set(target.value as string, value);
  else if (target.type === "TupleLiteral") {
    const [names, items] = [target.value as readonly Node[], itemsOf(value)];
    if (names.length !== items.length) throw new TypeError(`${items.length} items are given to ${names.length} names`);
    names.forEach((name, i) => assign(name, items[i], scope));
  } else {
    const object = target.type === "MemberExpression" && !target.computed ? evaluate(target.object!, scope) : undefined;
    if (!(object instanceof Namespace)) throw new TypeError("only names and attributes of a namespace can be set");
    object.fields.set(target.property!.value as string, value);
  }
}

/** A macro: it sees the names around its definition, and gives a text. */
function createMacro(parameters: readonly Node[], body: readonly Node[], around: Scope): Callable {
  const names = parameters.map(({ type, value, key }) => (type === "Identifier" ? value : key!.value) as string);
  const uses = new Set(["varargs", "kwargs"].filter((name) => mentions(body, name)));
  return ({ positional, named }: Arguments) => {
    const scope = within(around);
    const extra = new Map(named);
    for (const [i, name] of names.entries()) {
      if (i < positional.length && extra.has(name)) throw new TypeError(`argument ${name} is there twice`);
      scope.names.set(name, i < positional.length ? positional[i] : extra.get(name));
      const isMissing = i >= positional.length && !extra.delete(name);
      if (isMissing && parameters[i].type !== "Identifier") {
        scope.names.set(name, evaluate(parameters[i].value as Node, scope));
      }
    }
    const rest = positional.slice(names.length);
    if (!uses.has("varargs") && rest.length > 0) throw new TypeError(`a macro takes at most ${names.length} arguments`);
    if (!uses.has("kwargs") && extra.size > 0) throw new TypeError(`a macro has no argument ${[...extra.keys()][0]}`);
    scope.names.set("varargs", new Tuple(rest)).set("kwargs", extra);
    return renderBlock(body, scope);
  };
}

/** Whether a name is mentioned anywhere in a tree. */
function mentions(value: unknown, name: string): boolean {
  if (Array.isArray(value)) return value.some((item) => mentions(item, name));
  if (value instanceof Map) return [...value].some((pair) => mentions(pair, name));
  if (typeof value !== "object" || value === null) return false;
  const node = value as Node;
  if (node.type === "Identifier") return node.value === name;
  return Object.values(node).some((part) => mentions(part, name));
}

/** The function `namespace`. @throws {TypeError} for what isn't a dict */
export function createNamespace({ positional: [first], named }: Arguments): Namespace {
  if (first !== undefined && !(first instanceof Map)) {
    throw new TypeError(`namespace is of a ${typeName(first)}, must be of a dict`);
  }
  const fields = new Map<string, Value>();
  for (const [key, value] of [...(first ?? []), ...named]) fields.set(toText(key), value);
  return new Namespace(fields);
}
