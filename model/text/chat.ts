/**
 * Prompts: chat templates where the tokenizer has one, and the tokens that start and end a text.
 *
 * @module
 */
import { Template } from "@huggingface/jinja";
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";
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
  /** Tokens of a plain text, the token that starts a document in front where the model wants one. */
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

/** Reads how prompts are made from config.json, generation_config.json, tokenizer_config.json and chat_template.jinja. */
export async function readPromptFormat(checkpoint: Checkpoint, tokenizer: Tokenizer): Promise<PromptFormat> {
  const read = async (file: string): Promise<Readonly<Record<string, unknown>>> => {
    const text = await checkpoint.readText(file);
    return text === undefined ? {} : parseJsonObject(`${checkpoint.name}/${file}`, text).fields;
  };
  const settings = await read("tokenizer_config.json");
  const { chat_template: given } = settings;
  const template = typeof given === "string" || Array.isArray(given)
    ? given
    : await checkpoint.readText("chat_template.jinja");
  const { bosToken } = checkpoint.config;
  const startsWithBos = settings.add_bos_token !== false;
  const render = (messages: readonly ChatMessage[], options: ChatOptions = {}) => {
    if (template === undefined) throw new TypeError(`${checkpoint.name} has no chat template, must have one to chat`);
    const { name } = checkpoint;
    return renderChat(name, defaultTemplate(name, template), messages, settings, options);
  };
  return {
    hasTemplate: template !== undefined,
    stopTokens: stopTokensOf(await read("config.json"), await read("generation_config.json")),
    encodeText: (text) => Uint32Array.from([...(startsWithBos ? [bosToken] : []), ...tokenizer.encode(text)]),
    renderChat: render,
    encodeChat: (messages) => tokenizer.encode(render(messages)),
  };
}

/** The template itself, or of several with names the one called `default`. */
function defaultTemplate(name: string, template: string | readonly unknown[]): string {
  if (typeof template === "string") return template;
  const named = template.map((entry) => Object(entry) as { readonly name?: unknown; readonly template?: unknown });
  const found = named.find((entry) => entry.name === "default")?.template;
  if (typeof found === "string") return found;
  const names = named.map((entry) => `${JSON.stringify(entry.name)}`).join(", ") || "none";
  throw new SyntaxError(`${name}: chat_template has ${names}, must have a text with the name "default"`);
}

function renderChat(
  name: string,
  template: string,
  messages: readonly ChatMessage[],
  settings: Readonly<Record<string, unknown>>,
  { addGenerationPrompt = true }: ChatOptions,
): string {
  try {
    return new Template(template).render({
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: addGenerationPrompt,
      bos_token: tokenText(settings.bos_token),
      eos_token: tokenText(settings.eos_token),
    });
  } catch (cause) {
    throw new SyntaxError(`${name}: the chat template fails: ${(cause as Error).message}`, { cause });
  }
}

/** A special token in tokenizer_config.json is a text, or an object with a text. */
function tokenText(token: unknown): string {
  const content = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
  return typeof content === "string" ? content : "";
}

function stopTokensOf(...configs: readonly Readonly<Record<string, unknown>>[]): number[] {
  const tokens = configs.flatMap(({ eos_token_id: id }) => Array.isArray(id) ? id : [id]);
  return [...new Set(tokens.filter((token): token is number => Number.isInteger(token)))];
}
