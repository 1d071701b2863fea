/**
 * Generating text: tokens from a session, text as it comes.
 *
 * @module
 */
import type { Sampling } from "../../kernels/tokens/pick_token.ts";
import { letOthersRun } from "../host/event_loop.ts";
import { paceSteps } from "./pace.ts";
import type { Session } from "./session.ts";
import { createTextStream } from "../text/text_stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

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

/**
 * Generates tokens, in runs that the device computes without the host. After a stop token the rest of its run is thrown
 * away.
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
  let steps = 1;
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
  let chosen: Uint32Array<ArrayBuffer>;
  try {
    chosen = Uint32Array.of(await session.prefill(prompt, sampling, signal));
  } catch (error) {
    if (signal?.aborted) return summarize("aborted");
    throw error;
  }
  firstMs = performance.now();
  while (true) {
    const stop = chosen.findIndex((token) => stopTokens.includes(token));
    const kept = stop < 0 ? chosen : chosen.subarray(0, stop);
    tokens += kept.length;
    if (kept.length > 0) yield kept;
    if (stop >= 0) return summarize("stop token");
    if (tokens >= limit) return summarize("length");
    await letOthersRun();
    if (signal?.aborted) return summarize("aborted");
    const runStartMs = performance.now();
    chosen = await session.decode(Math.min(steps, limit - tokens), sampling);
    steps = paceSteps(steps, performance.now() - runStartMs);
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
  const runs = generateTokens(session, prompt, options);
  while (true) {
    const { value, done } = await runs.next();
    const text = done ? stream.finish() : stream.push(value);
    if (text !== "") yield text;
    if (done) return value;
  }
}
