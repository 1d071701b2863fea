/**
 * The engine: a model on the GPU that takes prompts and generates text.
 *
 * @module
 */
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu } from "../../kernels/gpu/gpu.ts";
import { type BatchSession, checkSequences, createBatchSession } from "./batch_session.ts";
import { type ChatMessage, type PromptFormat, readPromptFormat } from "../text/chat.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type EngineWeights, uploadWeights } from "./engine_weights.ts";
import { type GenerateOptions, type GenerateSummary, generateText } from "./generate.ts";
import { type BatchText, generateBatchText } from "./generate_batch.ts";
import { createSession, type Session } from "./session.ts";
import { readFittingTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { checkpointSource, weightBytes } from "./weight_source.ts";

/** What {@linkcode createEngine} accepts. */
export interface EngineOptions {
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

const DEFAULT_NEW_TOKENS = 512;

/**
 * A model on the GPU. Dispose it to free the device.
 */
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
  readonly #ownsGpu: boolean;

  /** Use {@linkcode createEngine}. */
  constructor(
    name: string,
    tokenizer: Tokenizer,
    prompts: PromptFormat,
    gpu: Gpu,
    weights: EngineWeights,
    ownsGpu: boolean,
  ) {
    this.name = name;
    this.config = weights.config;
    this.tokenizer = tokenizer;
    this.prompts = prompts;
    this.gpu = gpu;
    this.weights = weights;
    this.#ownsGpu = ownsGpu;
  }

  /**
   * Makes an empty sequence.
   *
   * @param capacity tokens to have room for
   * @throws {RangeError} when the model's context is shorter
   * @throws {OutOfMemoryError} when the device has no room
   */
  createSession(capacity: number): Promise<Session> {
    return createSession(this.gpu, this.weights, capacity);
  }

  /**
   * Makes empty sequences that go on together.
   *
   * @param sequences 1 to 16
   * @param capacity tokens that each has room for
   * @throws {RangeError} for another number of them, when the model's context is shorter, or the device can't bind so
   * large a cache
   * @throws {OutOfMemoryError} with what the caches need, when the device has no room
   */
  createBatchSession(sequences: number, capacity: number): Promise<BatchSession> {
    return createBatchSession(this.gpu, this.weights, sequences, capacity);
  }

  /**
   * Generates text after a prompt, which is a plain text or a conversation.
   *
   * @throws {RangeError} when the prompt is longer than the model's context
   */
  async *generate(
    prompt: string | readonly ChatMessage[],
    options: EngineGenerateOptions = {},
  ): AsyncGenerator<string, GenerateSummary> {
    const { stopTokens } = this.prompts;
    const tokens = this.#encode(prompt, "the prompt");
    using session = await this.createSession(this.#capacityFor(tokens.length, options));
    return yield* generateText(session, this.tokenizer, tokens, { stopTokens, ...options });
  }

  /**
   * Generates texts after 1 to 16 prompts at once: each step takes a token of each. Pieces come with the index of their
   * prompt; greedy texts are those that {@linkcode Engine.generate} gives.
   *
   * @param options for every sequence; with sampling, sequence i draws with the seed i above the one given
   * @returns how each sequence went, by the index of its prompt
   * @throws {RangeError} when there are no prompts or too many, or one is longer than the model's context
   * @throws {OutOfMemoryError} with what the caches need, when the device has no room
   */
  async *generateBatch(
    prompts: readonly (string | readonly ChatMessage[])[],
    options: EngineGenerateOptions = {},
  ): AsyncGenerator<BatchText, GenerateSummary[]> {
    checkSequences(prompts.length);
    const { stopTokens } = this.prompts;
    const tokens = prompts.map((prompt, i) => this.#encode(prompt, `prompt ${i}`));
    const longest = Math.max(...tokens.map(({ length }) => length));
    using session = await this.createBatchSession(prompts.length, this.#capacityFor(longest, options));
    return yield* generateBatchText(session, this.tokenizer, tokens, { stopTokens, ...options });
  }

  #encode(prompt: string | readonly ChatMessage[], name: string): Uint32Array<ArrayBuffer> {
    const { prompts, config: { context } } = this;
    const tokens = typeof prompt === "string" ? prompts.encodeText(prompt) : prompts.encodeChat(prompt);
    if (tokens.length <= context) return tokens;
    throw new RangeError(`${name} has ${tokens.length} tokens, must have at most the model's context of ${context}`);
  }

  /** Tokens to have room for, with a prompt of so many. */
  #capacityFor(promptTokens: number, { context, maxTokens = DEFAULT_NEW_TOKENS }: EngineGenerateOptions): number {
    return context ?? Math.min(this.config.context, promptTokens + maxTokens);
  }

  /** Frees the weights, and the device where it is the engine's own. */
  [Symbol.dispose](): void {
    this.weights.destroy();
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
  const tokenizer = await readFittingTokenizer(checkpoint);
  const prompts = await readPromptFormat(checkpoint, tokenizer);
  const gpu = options.gpu ?? await openGpu();
  const { name } = checkpoint;
  try {
    const weights = await uploadWeights(gpu, checkpointSource(checkpoint), options.onProgress);
    return new Engine(name, tokenizer, prompts, gpu, weights, options.gpu === undefined);
  } catch (error) {
    if (options.gpu === undefined) gpu.close();
    if (!(error instanceof OutOfMemoryError)) throw error;
    const needed = weightBytes(checkpoint);
    const message =
      `${name} needs ${needed} bytes of device memory for its weights, ${error.heldBytes} bytes were already held: ` +
      error.message;
    throw new OutOfMemoryError(message, needed, error.heldBytes);
  }
}
