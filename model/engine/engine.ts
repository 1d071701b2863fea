// The engine: a model on the GPU that takes prompts and generates text.
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { type ChatMessage, type ChatOptions, type PromptFormat, readPromptFormat } from "../text/chat.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type EngineWeights, uploadWeights } from "./engine_weights.ts";
import {
  checkMaxTokens,
  type GenerateOptions,
  type GenerateSummary,
  generateText,
  type TextPiece,
} from "./generate.ts";
import type { DecodePrecision } from "./precision.ts";
import { checkSequences, createSession, type Session } from "./session.ts";
import { readFittingTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { checkpointSource, weightBytes } from "./weight_source.ts";

/** What {@linkcode createEngine} accepts. */
export interface EngineOptions extends DecodePrecision {
  /** Device to use; it stays open after the engine. Default: one of its own. */
  readonly gpu?: Gpu;
  /** Called with the share of the weights that are on the device. */
  readonly onProgress?: (share: number) => void;
}

/** What {@linkcode Engine.generate} accepts. */
export interface EngineGenerateOptions extends GenerateOptions {
  /** Tokens to have room for, prompt included. Default: prompt and 512 more, within the model's context. */
  readonly context?: number;
}

/** A plain text, or a conversation. */
export type Prompt = string | readonly ChatMessage[];

const DEFAULT_NEW_TOKENS = 512;

/** A model on the GPU. Dispose it to free the device. */
export class Engine implements Disposable {
  /** Name of the checkpoint. */
  readonly name: string;
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** The model's tokenizer. */
  readonly tokenizer: Tokenizer;
  /** How prompts are made. */
  readonly prompts: PromptFormat;
  /** The device. */
  readonly gpu: Gpu;
  /**
   * The weights in device memory.
   *
   * @ignore
   */
  readonly weights: EngineWeights;
  readonly #precision: DecodePrecision;
  readonly #ownsGpu: boolean;

  /** Use {@linkcode createEngine}. */
  constructor(
    name: string,
    tokenizer: Tokenizer,
    prompts: PromptFormat,
    gpu: Gpu,
    weights: EngineWeights,
    ownsGpu: boolean,
    precision: DecodePrecision = {},
  ) {
    this.name = name;
    this.config = weights.config;
    this.tokenizer = tokenizer;
    this.prompts = prompts;
    this.gpu = gpu;
    this.weights = weights;
    this.#precision = precision;
    this.#ownsGpu = ownsGpu;
  }

  /**
   * Makes empty sequences that go on together.
   *
   * @param capacity tokens that each has room for
   * @param sequences 1 to 128; default: 1
   * @throws {RangeError} for another number of them, when the model's context is shorter, the device can't bind so
   * large a cache, or the precision is for other weights
   * @throws {OutOfMemoryError} with what the caches need, when the device has no room
   */
  createSession(capacity: number, sequences = 1): Promise<Session> {
    return createSession(this.gpu, this.weights, capacity, sequences, this.#precision);
  }

  /** As {@linkcode Engine.generateBatch} with one prompt, in pieces with tokens and their probabilities. */
  generate(
    prompt: Prompt,
    options: EngineGenerateOptions & { readonly logProbabilities: true },
  ): AsyncGenerator<TextPiece, GenerateSummary>;
  /**
   * Generates text after a prompt, which is a plain text or a conversation. Joined, the pieces are the text.
   *
   * ```ts
   * import { loadEngine } from "@twobit/twobit";
   * import { assert } from "@std/assert";
   *
   * using engine = await loadEngine("tiny");
   * let text = "";
   * for await (const piece of engine.generate("Fellow citizens", { maxTokens: 8 })) text += piece;
   * const options = { maxTokens: 8, logProbabilities: true } as const;
   * let again = "";
   * for await (const { text, tokens, logProbabilities } of engine.generate("Fellow citizens", options)) {
   *   again += text;
   *   assert(tokens.length === 0 || logProbabilities![0] <= 0);
   * }
   * assert(again === text);
   * ```
   *
   * @returns how it went
   * @throws {RangeError} when the prompt is longer than the model's context
   * @throws {OutOfMemoryError} with what the cache needs, when the device has no room
   */
  generate(
    prompt: Prompt,
    options?: EngineGenerateOptions & { readonly logProbabilities?: false },
  ): AsyncGenerator<string, GenerateSummary>;
  async *generate(
    prompt: Prompt,
    options: EngineGenerateOptions = {},
  ): AsyncGenerator<string | TextPiece, GenerateSummary> {
    const pieces = this.generateBatch([prompt], options);
    try {
      let next = await pieces.next();
      for (; !next.done; next = await pieces.next()) {
        if (options.logProbabilities) yield next.value;
        else if (next.value.text !== "") yield next.value.text;
      }
      return next.value[0];
    } finally {
      // Frees the session also where nobody reads on.
      await pieces.return([]);
    }
  }

  /**
   * Generates texts after 1 to 128 prompts at once: each step takes a token of each. Pieces come with the index of their
   * prompt; greedy texts are those that {@linkcode Engine.generate} gives.
   *
   * @param options for every sequence; with sampling, sequence i draws with the seed i above the one given
   * @returns how each sequence went, by the index of its prompt
   * @throws {RangeError} when there are no prompts or too many, or one is longer than the model's context
   * @throws {OutOfMemoryError} with what the caches need, when the device has no room
   */
  async *generateBatch(
    prompts: readonly Prompt[],
    options: EngineGenerateOptions = {},
  ): AsyncGenerator<TextPiece, GenerateSummary[]> {
    checkSequences(prompts.length);
    const { stopTokens } = this.prompts;
    const tokens = prompts.map((prompt, i) =>
      this.#encode(prompt, prompts.length === 1 ? "the prompt" : `prompt ${i}`)
    );
    const longest = Math.max(...tokens.map(({ length }) => length));
    using session = await this.createSession(this.#capacityFor(longest, options), prompts.length);
    return yield* generateText(session, this.tokenizer, tokens, { stopTokens, ...options });
  }

  /**
   * Logits of a list of tokens: what the model predicts after each.
   *
   * ```ts
   * import { loadEngine } from "@twobit/twobit";
   * import { assert } from "@std/assert";
   *
   * using engine = await loadEngine("tiny");
   * const tokens = engine.tokenizer.encode("Fellow citizens");
   * const [last] = await engine.logits(tokens, [tokens.length - 1]);
   * assert(last.length === engine.config.vocabulary);
   * ```
   *
   * @param positions indices into `tokens`; default: all
   * @returns f32 [vocabulary] for each position
   * @throws {RangeError} when there are no tokens or more than the model's context, one is outside the vocabulary, or a
   * position outside the tokens
   * @throws {Error} when logits are not numbers
   */
  async logits(tokens: ArrayLike<number>, positions?: readonly number[]): Promise<Float32Array<ArrayBuffer>[]> {
    using session = await this.createSession(Math.max(1, tokens.length));
    return await session.logitsAfter(Uint32Array.from(tokens), positions ?? Array.from(tokens, (_, i) => i));
  }

  /**
   * The text and the tokens that a conversation becomes, by the model's chat template.
   *
   * @throws {TypeError} where there is no chat template
   * @throws {SyntaxError} where the template fails, with its message
   */
  renderChat(
    messages: readonly ChatMessage[],
    options?: ChatOptions,
  ): { readonly text: string; readonly tokens: Uint32Array<ArrayBuffer> } {
    const text = this.prompts.renderChat(messages, options);
    return { text, tokens: this.tokenizer.encode(text) };
  }

  #encode(prompt: Prompt, name: string): Uint32Array<ArrayBuffer> {
    const { prompts, config: { context } } = this;
    const tokens = typeof prompt === "string" ? prompts.encodeText(prompt) : prompts.encodeChat(prompt);
    if (tokens.length <= context) return tokens;
    throw new RangeError(`${name} has ${tokens.length} tokens, must have at most the model's context of ${context}`);
  }

  /** Tokens to have room for, with a prompt of so many. */
  #capacityFor(promptTokens: number, { context, maxTokens = DEFAULT_NEW_TOKENS }: EngineGenerateOptions): number {
    checkMaxTokens(maxTokens);
    return context ?? Math.min(this.config.context, promptTokens + maxTokens);
  }

  /** Frees the weights, and the device where it is the engine's own. */
  [Symbol.dispose](): void {
    this.weights[Symbol.dispose]();
    if (this.#ownsGpu) this.gpu.close();
  }
}

/**
 * Puts a checkpoint's model onto the GPU.
 *
 * @throws {SyntaxError} when the model can't be read
 * @throws {OutOfMemoryError} with what the model needs, when the device has no room
 */
export async function createEngine(checkpoint: Checkpoint, options: EngineOptions = {}): Promise<Engine> {
  const { gpu: given, onProgress, ...precision } = options;
  const tokenizer = await readFittingTokenizer(checkpoint);
  const prompts = await readPromptFormat(checkpoint, tokenizer);
  const gpu = given ?? await openGpu();
  const { name } = checkpoint;
  try {
    const weights = await uploadWeights(gpu, checkpointSource(checkpoint), onProgress);
    return new Engine(name, tokenizer, prompts, gpu, weights, given === undefined, precision);
  } catch (error) {
    if (given === undefined) gpu.close();
    if (!(error instanceof OutOfMemoryError)) throw error;
    const needed = weightBytes(checkpoint);
    const message =
      `${name} needs ${needed} bytes of device memory for its weights, ${error.heldBytes} bytes were already held: ` +
      error.message;
    throw new OutOfMemoryError(message, needed, error.heldBytes);
  }
}
