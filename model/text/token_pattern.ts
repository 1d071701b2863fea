// Patterns of tokenizer.json: Oniguruma's regular expressions in JavaScript's words.
import { SplitPreTokenizer } from "@huggingface/tokenizers";
import { asJsonObject, type JsonObject } from "../host/json.ts";
import { clipText, quoteText } from "../host/quote_text.ts";

/** Characters of a regular expression; the longest of published tokenizers have some 1,000. */
const MAX_PATTERN = 2 ** 14;

/** Reads the field `pattern`: `{ String }` or `{ Regex }`. @throws {SyntaxError} for one that isn't known or may not end */
export function compilePattern(json: JsonObject): RegExp {
  const pattern = asJsonObject(`${json.name}: pattern`, json.fields.pattern);
  const { String: text, Regex: source } = pattern.fields;
  if (typeof text === "string" && text !== "") return compile(pattern.name, { String: text });
  if (typeof source !== "string" || source === "" || source.length > MAX_PATTERN) {
    throw new SyntaxError(`${pattern.name} is ${quoteText(pattern.fields)}, must be a String or a Regex, not empty`);
  }
  if (mayNotEnd(source)) {
    throw new SyntaxError(`${pattern.name} is ${quoteText(source)}, must not repeat a group that repeats or chooses`);
  }
  return compile(pattern.name, { Regex: source });
}

function compile(name: string, pattern: Readonly<Record<string, string>>): RegExp {
  try {
    // The library translates the expression; its own way of splitting isn't used.
    const { pattern: compiled } = new SplitPreTokenizer(
      { type: "Split", pattern, invert: true } as never,
    ) as unknown as {
      readonly pattern: RegExp;
    };
    return compiled;
  } catch (cause) {
    throw new SyntaxError(`${name} cannot be used: ${clipText((cause as Error).message)}`, { cause });
  }
}

/**
 * Whether a group that is repeated without bound holds something of variable length, as in `(a+)+`: such an expression
 * may take longer than anybody lives for thirty characters. Hardly any published tokenizer has one.
 */
function mayNotEnd(source: string): boolean {
  const token = /\\(?:[pPxu]\{[^}]*\}|[\s\S])|\[\^?\]?|\]|\(|\)|\||(?:[*+?]|\{\d*(?:,\d*)?\})[?+]?/gu;
  const variable = [false];
  let inClass = 0;
  /** The group that ended last: where, and whether its length varies. */
  let ended = { at: -1, varies: false };
  for (const { 0: found, index } of source.matchAll(token)) {
    if (found.startsWith("[")) inClass++;
    else if (found === "]") inClass = Math.max(0, inClass - 1);
    else if (inClass > 0 || found.startsWith("\\")) continue;
    else if (found === "(") variable.push(false);
    else if (found === ")") {
      ended = { at: index + 1, varies: variable.length > 1 && variable.pop()! };
      variable[variable.length - 1] ||= ended.varies;
    } else if (found === "|") variable[variable.length - 1] = true;
    else if (source[index - 1] !== "(" && !/^\{\d+\}/.test(found)) {
      if (ended.at === index && ended.varies && /^(?:[*+]|\{\d*,\})/.test(found)) return true;
      variable[variable.length - 1] = true;
    }
  }
  return false;
}
