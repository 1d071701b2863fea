// The special tokens before a text.
import { asJsonObject, byType, type JsonObject, listField } from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";
import { readSequence } from "./sequence.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** No tokenizer puts more than two tokens before a text. */
const MAX_PREFIX = 4;

/**
 * Reads what the tokenizer puts before a text: what its post-processor does, as transformers has it; where that says
 * nothing BOS by an explicit `add_bos_token`; and nothing otherwise: a configuration's `bos_token_id` puts no token there
 * in transformers 5.24, whatever the tokenizer's class.
 *
 * @param settings tokenizer_config.json
 * @throws {SyntaxError} for a post-processor that isn't known, or a token that the vocabulary lacks
 */
export function readPrefix(
  { name, fields }: JsonObject,
  settings: JsonObject["fields"],
  vocabulary: Vocabulary,
): number[] {
  const { post_processor: value } = fields;
  const json = value === null || value === undefined ? undefined : asJsonObject(`${name}: post_processor`, value);
  const prefix = json && readPart(json);
  if (!prefix && settings.add_bos_token !== true) return [];
  if (prefix && prefix.length > MAX_PREFIX) {
    throw new SyntaxError(`${json!.name} puts ${prefix.length} tokens before a text, must put at most ${MAX_PREFIX}`);
  }
  const found: readonly unknown[] = prefix ?? [vocabulary.idOf(tokenText(settings.bos_token) ?? "")];
  for (const id of found) {
    if (!vocabulary.tokens.has(id as number)) {
      const what = prefix
        ? `${json!.name} puts token ${quoteText(id)}`
        : `add_bos_token puts ${quoteText(settings.bos_token)}`;
      throw new SyntaxError(`${prefix ? "" : `${name}: `}${what} before a text, must be one of the vocabulary`);
    }
  }
  return found as number[];
}

/** Ids before a text; undefined where a part has no say. */
function readPart(json: JsonObject): readonly unknown[] | undefined {
  const classToken = (json: JsonObject) => [listField(json, "cls")[1]];
  return byType<readonly unknown[] | undefined>(json, {
    ByteLevel: () => undefined,
    BertProcessing: classToken,
    RobertaProcessing: classToken,
    Sequence: (json) => {
      const parts = readSequence(json, "processors", readPart);
      // Each goes around what those before it made.
      return parts.every((part) => part === undefined) ? undefined : parts.toReversed().flatMap((part) => part ?? []);
    },
    TemplateProcessing: readTemplate,
  });
}

function readTemplate(json: JsonObject): unknown[] {
  const items = listField(json, "single").map((item) => asJsonObject(`${json.name}: single`, item).fields);
  const text = items.findIndex((item) => "Sequence" in item);
  const tokens = asJsonObject(`${json.name}: special_tokens`, json.fields.special_tokens).fields;
  return items.slice(0, text < 0 ? 0 : text).flatMap(({ SpecialToken: value }) => {
    const { id } = asJsonObject(`${json.name}: single`, value).fields;
    const token = typeof id === "string" && Object.hasOwn(tokens, id) ? tokens[id] : undefined;
    return listField(asJsonObject(`${json.name}: special token ${quoteText(id)}`, token), "ids");
  });
}

/** A special token in tokenizer_config.json is a text, or an object with a text. */
export function tokenText(token: unknown): string | undefined {
  const content = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
  return typeof content === "string" ? content : undefined;
}
