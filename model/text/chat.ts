// Prompts: chat templates where the tokenizer has one, and the tokens that start and end a text.
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";
import { refuseLfsPointer } from "../host/lfs_pointer.ts";
import { quoteText } from "../host/quote_text.ts";
import { tokenText } from "./prefix.ts";
import { renderTemplate } from "./template.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One message of a conversation. */
export interface ChatMessage {
  /** Who speaks: `system`, `user` or `assistant`. */
  readonly role: string;
  /** What is said. */
  readonly content: string;
}

/** What {@linkcode PromptFormat.renderChat} accepts. */
export interface ChatOptions {
  /** Whether the model's answer is started. Default: true. */
  readonly addGenerationPrompt?: boolean;
}

/** How a model's prompts are made. */
export interface PromptFormat {
  /** Whether the tokenizer has a chat template. */
  readonly hasTemplate: boolean;
  /** Tokens that end a text. */
  readonly stopTokens: readonly number[];
  /** Tokens of a plain text, those in front that the tokenizer puts there. */
  encodeText(text: string): Uint32Array<ArrayBuffer>;
  /**
   * Text of a conversation, up to where the model's answer starts.
   *
   * @throws {TypeError} where there is no chat template
   * @throws {SyntaxError} where the template fails, with its message, or none of several is the default
   */
  renderChat(messages: readonly ChatMessage[], options?: ChatOptions): string;
  /** Tokens of {@linkcode PromptFormat.renderChat}. @throws as it does */
  encodeChat(messages: readonly ChatMessage[]): Uint32Array<ArrayBuffer>;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Reads how prompts are made from config.json, generation_config.json, tokenizer_config.json, special_tokens_map.json and
 * chat_template.jinja.
 */
export async function readPromptFormat(
  { name, readText }: Pick<Checkpoint, "name" | "readText">,
  tokenizer: Tokenizer,
): Promise<PromptFormat> {
  const read = async (file: string): Promise<Fields> => {
    const text = await readText(file);
    return text === undefined ? {} : parseJsonObject(`${name}/${file}`, text).fields;
  };
  // Where a model has the older file too, transformers takes its special tokens.
  const settings: Fields = { ...await read("tokenizer_config.json"), ...await read("special_tokens_map.json") };
  const { chat_template: inline } = settings;
  const own = await readText("chat_template.jinja");
  if (own !== undefined) refuseLfsPointer(`${name}/chat_template.jinja`, own);
  const template = own ??
    (typeof inline === "string" || Array.isArray(inline) ? inline : undefined);
  const renderChat = (messages: readonly ChatMessage[], { addGenerationPrompt = true }: ChatOptions = {}) => {
    if (template === undefined) throw new TypeError(`${name} has no chat template, must have one to chat`);
    return renderTemplate(name, defaultTemplate(name, template), {
      ...specialTokens(settings),
      messages: messages.map(({ role, content }) => ({ role, content })),
      tools: null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
    });
  };
  return {
    hasTemplate: template !== undefined,
    stopTokens: stopTokensOf(tokenizer, settings, await read("config.json"), await read("generation_config.json")),
    encodeText: (text) => Uint32Array.from([...tokenizer.prefix, ...tokenizer.encode(text)]),
    renderChat,
    encodeChat: (messages) => tokenizer.encode(renderChat(messages)),
  };
}

/** The template itself, or of several with names the one called `default`. */
function defaultTemplate(name: string, template: string | readonly unknown[]): string {
  if (typeof template === "string") return template;
  const named = template.map((entry) => Object(entry) as { readonly name?: unknown; readonly template?: unknown });
  const found = named.find((entry) => entry.name === "default")?.template;
  if (typeof found === "string") return found;
  const names = named.slice(0, 4).map((entry) => quoteText(entry.name, 30)).join(", ") || "none";
  throw new SyntaxError(`${name}: chat_template has ${names}, must have a text with the name "default"`);
}

/** Special tokens that a template may name: bos_token, eos_token, unk_token, ..., and those that the tokenizer adds. */
function specialTokens({ extra_special_tokens: extra, ...settings }: Fields): Record<string, string> {
  const named = Object.entries(settings).filter(([key]) => key.endsWith("_token"));
  const all = [...named, ...Object.entries(Array.isArray(extra) ? {} : Object(extra) as Fields)];
  return Object.fromEntries(all.flatMap(([key, value]) => {
    const text = tokenText(value);
    return text === undefined ? [] : [[key, text]];
  }));
}

/** Tokens that end an answer in chat formats, whatever a model's files say; llama.cpp goes by these names too. */
const END_NAMES = [
  "<|eot_id|>",
  "<|eom_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<end_of_turn>",
  "<end_of_utterance>",
  "<EOT>",
  "< EOT >",
  "_<EOT>",
  "<\uff5cend\u2581of\u2581sentence\uff5c>",
];

function stopTokensOf(tokenizer: Tokenizer, settings: Fields, ...configs: readonly Fields[]): number[] {
  const names = [...["eos_token", "eot_token", "eom_token"].map((key) => tokenText(settings[key]) ?? ""), ...END_NAMES];
  const ids = [
    ...configs.flatMap(({ eos_token_id: id }) => Array.isArray(id) ? id : [id]),
    // A text that is a token is found as a whole.
    ...names.map((name) => tokenizer.encode(name)).filter(({ length }) => length === 1).map(([id]) => id),
  ];
  return [...new Set(ids.filter((id): id is number => Number.isInteger(id)))];
}
