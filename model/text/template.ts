// Chat templates: parsed by @huggingface/jinja and rendered here as jinja2 does in transformers. What jinja2 refuses or
// what isn't known here is refused, so that no other text comes in silence.
import { parse, tokenize } from "@huggingface/jinja";
import { clipText } from "../host/quote_text.ts";
import { createTimeLimit } from "../host/time_limit.ts";
import { createBudget } from "./jinja/budget.ts";
import type { Node } from "./jinja/node.ts";
import { parameters } from "./jinja/parameters.ts";
import type { Scope } from "./jinja/scope.ts";
import { createNamespace, renderBlock } from "./jinja/statement.ts";
import { formatDate } from "./jinja/strftime.ts";
import { toText } from "./jinja/text.ts";
import { type Callable, Float, type Value, View, whole } from "./jinja/value.ts";

/** Renders a template with values as JSON has them. @throws {SyntaxError} where it fails, with its message */
export function renderTemplate(name: string, template: string, context: Readonly<Record<string, unknown>>): string {
  try {
    const limit = createTimeLimit("it");
    return limit(template.length, () => {
      const { body } = parse(rewriteTests(markBrackets(tokenize(prepare(template))))) as Node;
      const scope: Scope = { names: new Map<string, Value>(GLOBALS), budget: createBudget() };
      scope.names.set("range", createRange(scope));
      for (const [key, value] of Object.entries(context)) scope.names.set(key, asValue(value));
      return renderBlock(body!, scope);
    });
  } catch (cause) {
    throw new SyntaxError(`${name}: the chat template fails: ${clipText((cause as Error).message)}`, { cause });
  }
}

/** Characters of a template; the longest that are published have some 30,000. */
const MAX_TEMPLATE = 2 ** 18;
const LONG_SPACE = /\s{1001}/;

/** Line breaks and the space around blocks, as jinja2 takes them with trim_blocks and lstrip_blocks. */
function prepare(template: string): string {
  if (template.length > MAX_TEMPLATE) {
    throw new RangeError(`it has ${template.length} characters, must have at most ${MAX_TEMPLATE}`);
  }
  // The parser goes through a run of spaces again and again.
  if (LONG_SPACE.test(template)) throw new RangeError("it has more than 1000 spaces in a row");
  const sign = /\{%\+|\+%\}|\{\{\+|\{#\+|\+#\}/.exec(template)?.[0];
  if (sign) throw new SyntaxError(`${sign} is not known here`);
  // The parser takes a last line break away.
  return template
    .replace(/\r\n?/g, "\n")
    .replace(/(?<=^|\n)[ \t]+(?=\{[#%])/g, "")
    .replace(/([#%]\})\n/g, "$1");
}

type Token = ReturnType<typeof tokenize>[number];

/** Words before brackets that don't make them a call's. */
const OPERATORS: ReadonlySet<string> = new Set(["not", "in", "and", "or", "if", "elif", "else"]);

/**
 * Marks expressions in brackets as `1 and ...`, which has their value: the parser forgets brackets, and without them
 * comparisons in a row mean something else.
 */
function markBrackets(tokens: readonly Token[]): Token[] {
  return tokens.flatMap((token, i) => {
    if (token.type !== "OpenParen" || tokens[i + 1]?.type === "CloseParen") return [token];
    const { type, value } = tokens[i - 1];
    const isCall = type === "Identifier"
      ? !OPERATORS.has(value)
      : type === "CloseParen" || type === "CloseSquareBracket";
    return isCall ? [token] : [token, { type: "NumericLiteral", value: "1" }, { type: "Identifier", value: "and" }];
  });
}

/** Writes a test with arguments, `is NAME(...)`, as a filter of the name `is NAME`: the parser has tests without alone. */
function rewriteTests(tokens: readonly Token[]): Token[] {
  const written: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const isWord = (at: number, word?: string) =>
      tokens[at]?.type === "Identifier" && tokens[at].value === (word ?? tokens[at].value);
    const name = isWord(i, "is") ? i + (isWord(i + 1, "not") ? 2 : 1) : 0;
    if (name > 0 && isWord(name) && tokens[name + 1]?.type === "OpenParen") {
      const value = tokens.slice(i, name + 1).map(({ value }) => value).join(" ");
      written.push({ type: "Pipe", value: "|" }, { type: "Identifier", value });
      i = name;
    } else written.push(tokens[i]);
  }
  return written;
}

/** A value of JSON. */
function asValue(value: unknown): Value {
  if (typeof value === "number") return Number.isInteger(value) ? whole(value) : new Float(value);
  if (Array.isArray(value)) return value.map(asValue);
  if (typeof value !== "object" || value === null) return value as Value;
  return new Map(Object.entries(value).map(([key, item]) => [key, asValue(item)]));
}

const raise: Callable = ({ positional: [message] }) => {
  throw new Error(toText(message));
};

const GLOBALS: ReadonlyMap<string, Value> = new Map<string, Value>([
  ...["true", "True"].map((name) => [name, true] as const),
  ...["false", "False"].map((name) => [name, false] as const),
  ...["none", "None"].map((name) => [name, null] as const),
  ["dict", ({ positional, named }) => {
    if (positional.length > 0) throw new TypeError("dict takes named arguments alone here");
    return new Map(named);
  }],
  ["namespace", createNamespace],
  ["raise_exception", raise],
  ["strftime_now", (given) => formatDate(new Date(), toText(parameters(given, ["format"])[0]))],
]);

function createRange({ budget }: Pick<Scope, "budget">): Callable {
  return ({ positional }) => {
    const [start, stop, step] = positional.length === 1 ? [0, positional[0], 1] : [...positional, 1];
    if (![start, stop, step].every((bound) => typeof bound === "number") || step === 0) {
      throw new TypeError("range takes one to three ints");
    }
    const [first, end, by] = [start, stop, step] as number[];
    const length = Math.max(0, Math.ceil((end - first) / by));
    budget.spend(length);
    return new View(Array.from({ length }, (_, i) => first + i * by));
  };
}
