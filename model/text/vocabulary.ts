// The tokens of tokenizer.json and their ids, checked before anything is made of them.
import { asJsonObject, type JsonObject, listField } from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";
import { type AddedToken, MAX_VOCABULARY, readAddedToken } from "./added_tokens.ts";

export interface Vocabulary {
  /** Ids of the tokens that merging gives. */
  readonly merged: ReadonlyMap<string, number>;
  /** Tokens that are found as a whole. */
  readonly added: readonly AddedToken[];
  /** Id of a token of either kind; undefined where there is none. */
  idOf(token: string): number | undefined;
  readonly tokens: ReadonlyMap<number, string>;
}

/** Reads the vocabulary. @throws {SyntaxError} for an id that is none, or that two tokens have */
export function readVocabulary({ name, fields }: JsonObject): Vocabulary {
  const model = asJsonObject(`${name}: model`, fields.model);
  const merged = new Map<string, number>();
  const whole = new Map<string, number>();
  const idOf = (token: string) => whole.get(token) ?? merged.get(token);
  const tokens = new Map<number, string>();
  const take = (token: string, id: unknown) => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= MAX_VOCABULARY) {
      throw new SyntaxError(
        `${name}: token ${quoteText(token)} has id ${quoteText(id)}, must be an integer from 0 to ${
          MAX_VOCABULARY - 1
        }`,
      );
    }
    const [known, other] = [idOf(token) ?? id, tokens.get(id) ?? token];
    if (known !== id) {
      throw new SyntaxError(`${name}: token ${quoteText(token)} has ids ${known} and ${id}, must have one`);
    }
    if (other !== token) {
      throw new SyntaxError(`${name}: tokens ${quoteText(other)} and ${quoteText(token)} have id ${id}, must differ`);
    }
    tokens.set(id, token);
    return id;
  };
  for (const [token, id] of Object.entries(asJsonObject(`${model.name}: vocab`, model.fields.vocab).fields)) {
    merged.set(token, take(token, id));
  }
  const list = fields.added_tokens === undefined ? [] : listField({ name, fields }, "added_tokens");
  const added = list.map((entry) => readAddedToken(`${name}: added_tokens`, entry)).filter(({ content }) =>
    content !== ""
  );
  for (const { content, id } of added) whole.set(content, take(content, id));
  return { merged, added, idOf, tokens };
}
