/**
 * Generating text: tokens from a session, text as it comes.
 *
 * @module
 */
import type { Sampling } from "../kernels/pick_token.ts";
import { letOthersRun } from "./event_loop.ts";
import type { Session } from "./session.ts";
import { createTextStream } from "./text_stream.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What {@linkcode generateTokens} accepts. */
export interface GenerateOptions {
  /** Most tokens to generate, 1 or more. Default: as many as the session has room for. */
  readonly maxTokens?: number;
  /** How tokens are drawn. Default: the most likely one. */
  readonly sampling?: Sampling;
  /** Tokens that end the text; they are not part of it. */
  readonly stopTokens?: readonly number[];
  /** Ends the generation early; what was generated stays. */
  readonly signal?: AbortSignal;
}

/** How a generation went. */
export interface GenerateSummary {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Tokens generated, a stop token not counted. */
  readonly tokens: number;
  /** Why it ended. */
  readonly reason: "stop token" | "length" | "aborted";
  /** Milliseconds from the start to the first token. */
  readonly firstTokenMs: number;
  /** Tokens after the first, a second. */
  readonly tokensPerSecond: number;
}

/** A batch of tokens should take about so long: text flows, and waiting for the device costs little. */
const BATCH_MS = 60;
const MAX_BATCH = 64;

/**
 * Generates tokens, in batches that the device computes without the host. After a stop token the rest of its batch is
 * thrown away.
 *
 * @param prompt tokens of the prompt, at least one
 * @throws {RangeError} when the prompt doesn't fit in the session
 */
export async function* generateTokens(
  session: Session,
  prompt: Uint32Array<ArrayBuffer>,
  options: GenerateOptions = {},
): AsyncGenerator<Uint32Array<ArrayBuffer>, GenerateSummary> {
  const { sampling, stopTokens = [], signal } = options;
  const { maxTokens = Infinity } = options;
  if (!(maxTokens >= 1)) throw new RangeError(`maxTokens is ${maxTokens}, must be 1 or more`);
  const startMs = performance.now();
  const start = session.length;
  const room = session.capacity - session.length - prompt.length + 1;
  const limit = Math.min(maxTokens, room);
  let firstMs = startMs;
  let size = 1;
  let tokens = 0;
  const summarize = (reason: GenerateSummary["reason"]): GenerateSummary => {
    // What was computed beyond the text is forgotten; its last token may still have to be taken in.
    session.truncate(Math.min(session.length, start + prompt.length + tokens));
    return {
      promptTokens: prompt.length,
      tokens,
      reason,
      firstTokenMs: firstMs - startMs,
      tokensPerSecond: Math.max(0, tokens - 1) / Math.max(1e-9, (performance.now() - firstMs) / 1000),
    };
  };
  let batch: Uint32Array<ArrayBuffer>;
  try {
    batch = Uint32Array.of(await session.prefill(prompt, sampling, signal));
  } catch (error) {
    if (signal?.aborted) return summarize("aborted");
    throw error;
  }
  firstMs = performance.now();
  while (true) {
    const stop = batch.findIndex((token) => stopTokens.includes(token));
    const kept = stop < 0 ? batch : batch.subarray(0, stop);
    tokens += kept.length;
    if (kept.length > 0) yield kept;
    if (stop >= 0) return summarize("stop token");
    if (tokens >= limit) return summarize("length");
    await letOthersRun();
    if (signal?.aborted) return summarize("aborted");
    const batchStartMs = performance.now();
    batch = await session.decode(Math.min(size, limit - tokens), sampling);
    const batchMs = performance.now() - batchStartMs;
    if (batchMs < BATCH_MS / 2) size = Math.min(MAX_BATCH, 2 * size);
    else if (batchMs > 2 * BATCH_MS) size = Math.max(1, size >> 1);
  }
}

/** Generates text. @throws as {@linkcode generateTokens} */
export async function* generateText(
  session: Session,
  tokenizer: Tokenizer,
  prompt: Uint32Array<ArrayBuffer>,
  options: GenerateOptions = {},
): AsyncGenerator<string, GenerateSummary> {
  const stream = createTextStream(tokenizer);
  const batches = generateTokens(session, prompt, options);
  while (true) {
    const { value, done } = await batches.next();
    const text = done ? stream.finish() : stream.push(value);
    if (text !== "") yield text;
    if (done) return value;
  }
}
