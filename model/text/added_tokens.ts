// Tokens that are found in a text as a whole before it is split, as Python's tokenizers find them.
import { asJsonObject, booleanField, type JsonObject, numberField, textField } from "../host/json.ts";

export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Whether it is left out when tokens are decoded. */
  readonly special: boolean;
  /** Whether it is looked for in the normalized text. */
  readonly normalized: boolean;
  /** Whether it counts only where no word goes on before or behind it. */
  readonly singleWord: boolean;
  /** Whether it takes the space before it. */
  readonly takesLeft: boolean;
  /** Whether it takes the space behind it. */
  readonly takesRight: boolean;
}

/** Largest id + 1 of any vocabulary. */
export const MAX_VOCABULARY = 1 << 24;

/** Reads an entry of `added_tokens`. @throws {SyntaxError} */
export function readAddedToken(name: string, value: unknown): AddedToken {
  const json: JsonObject = asJsonObject(name, value);
  const special = booleanField(json, "special", false);
  return {
    content: textField(json, "content"),
    id: numberField(json, "id", { min: 0, max: MAX_VOCABULARY - 1, integer: true }),
    special,
    normalized: booleanField(json, "normalized", !special),
    singleWord: booleanField(json, "single_word", false),
    takesLeft: booleanField(json, "lstrip", false),
    takesRight: booleanField(json, "rstrip", false),
  };
}

/** A piece of a text: a token's id, or a text that has none of them. */
export type Found = number | string;

const SPACE = /^\p{White_Space}$/u;
const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const WORD_BEFORE = new RegExp(`${WORD}$`, "u");
const WORD_BEHIND = new RegExp(`^${WORD}`, "u");

/** By UTF-16 unit the nodes of one unit more; `token` ends here. */
interface Node {
  readonly next: Map<string, Node>;
  token?: AddedToken;
}

/** Characters of all added tokens together; a thousand of them have some 20,000. */
const MAX_CHARACTERS = 2 ** 20;

/**
 * Makes what finds tokens in a text: from left to right, of those that start at one place the longest.
 *
 * @param name what error messages call the tokenizer
 * @throws {SyntaxError} where the tokens have too many characters
 */
export function createFinder(
  name: string,
  tokens: readonly AddedToken[],
  contentOf: (token: AddedToken) => string,
): (text: string) => Found[] {
  const root: Node = { next: new Map() };
  let characters = 0;
  for (const token of tokens) {
    const content = contentOf(token);
    if ((characters += content.length) > MAX_CHARACTERS) {
      throw new SyntaxError(`${name}: added_tokens have more than ${MAX_CHARACTERS} characters, must have fewer`);
    }
    let node = root;
    for (const unit of content.split("")) {
      const next = node.next.get(unit) ?? { next: new Map() };
      node.next.set(unit, next);
      node = next;
    }
    if (node !== root) node.token = token;
  }
  return (text) => root.next.size > 0 ? findTokens(root, text) : text === "" ? [] : [text];
}

function findTokens(root: Node, text: string): Found[] {
  const found: Found[] = [];
  let taken = 0;
  for (let at = 0; at < text.length;) {
    const match = longestAt(root, text, at);
    if (!match) {
      at++;
      continue;
    }
    const { token } = match;
    let [start, end] = [at, match.end];
    at = end;
    if (token.singleWord && isWithinWord(text, start, end)) continue;
    while (token.takesLeft && start > taken && SPACE.test(text[start - 1])) start--;
    while (token.takesRight && end < text.length && SPACE.test(text[end])) end++;
    if (start > taken) found.push(text.slice(taken, start));
    found.push(token.id);
    at = taken = end;
  }
  if (taken < text.length) found.push(text.slice(taken));
  return found;
}

/** Whether a word goes on before `start` or at `end`. */
function isWithinWord(text: string, start: number, end: number): boolean {
  return WORD_BEFORE.test(text.slice(Math.max(0, start - 2), start)) || WORD_BEHIND.test(text.slice(end, end + 2));
}

function longestAt(root: Node, text: string, start: number): { token: AddedToken; end: number } | undefined {
  let longest: { token: AddedToken; end: number } | undefined;
  let node = root.next.get(text[start]);
  for (let end = start + 1; node; node = node.next.get(text[end++])) {
    if (node.token) longest = { token: node.token, end };
  }
  return longest;
}
