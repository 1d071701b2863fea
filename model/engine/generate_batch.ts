/**
 * Generating several texts at once: tokens from a batch, text of each sequence as it comes.
 *
 * @module
 */
import type { Sampling } from "../../kernels/tokens/pick_token.ts";
import type { BatchSession } from "./batch_session.ts";
import { letOthersRun } from "../host/event_loop.ts";
import type { GenerateOptions, GenerateSummary } from "./generate.ts";
import { paceSteps } from "./pace.ts";
import { createTextStream } from "../text/text_stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Some tokens of one sequence of a batch. */
export interface BatchTokens {
  /** Which sequence: the index of its prompt. */
  readonly index: number;
  /** What comes next in it. */
  readonly tokens: Uint32Array<ArrayBuffer>;
}

/** A piece of the text of one sequence of a batch. */
export interface BatchText {
  /** Which sequence: the index of its prompt. */
  readonly index: number;
  /** What comes next in it. */
  readonly text: string;
}

/** A sequence on its way. */
interface Going {
  readonly index: number;
  readonly sampling?: Sampling;
  /** Tokens in the cache before the generation, those of the prompt included. */
  readonly start: number;
  readonly promptTokens: number;
  /** Most tokens to generate. */
  readonly limit: number;
  tokens: number;
  reason?: GenerateSummary["reason"];
  endMs: number;
}

/**
 * Generates tokens of all sequences together, in runs that the device computes without the host. A sequence that has
 * ended is left out of the next run; what a run computed after its end is thrown away.
 *
 * @param prompts tokens for each sequence of the batch, at least one
 * @param options for every sequence; with sampling, sequence i draws with the seed i above the one given, as it would
 * alone
 * @returns how each sequence went, by the index of its prompt; the first tokens come when all prompts are taken in
 * @throws {RangeError} when a prompt is empty or doesn't fit in its sequence
 */
export async function* generateBatchTokens(
  session: BatchSession,
  prompts: readonly Uint32Array<ArrayBuffer>[],
  options: GenerateOptions = {},
): AsyncGenerator<BatchTokens, GenerateSummary[]> {
  const { stopTokens = [], signal } = options;
  const startMs = performance.now();
  const all = startSequences(session, prompts, options);
  let firstMs = startMs;
  let going = all;
  let chosen: readonly Uint32Array<ArrayBuffer>[];
  const abort = () => {
    for (const sequence of going) end(sequence, "aborted");
    return summarize(session, all, startMs, firstMs);
  };
  try {
    chosen = Array.from(await session.prefill(prompts, samplingOf(all), signal), (token) => Uint32Array.of(token));
  } catch (error) {
    if (signal?.aborted) return abort();
    throw error;
  }
  firstMs = performance.now();
  for (let steps = 1; true;) {
    for (const [i, sequence] of going.entries()) {
      const tokens = takeTokens(sequence, chosen[i], stopTokens);
      if (tokens.length > 0) yield { index: sequence.index, tokens };
    }
    going = going.filter(({ reason }) => reason === undefined);
    if (going.length === 0) return summarize(session, all, startMs, firstMs);
    await letOthersRun();
    if (signal?.aborted) return abort();
    const count = Math.min(steps, ...going.map(({ limit, tokens }) => limit - tokens));
    const runStartMs = performance.now();
    chosen = await session.decode(going.map(({ index }) => index), count, samplingOf(going));
    steps = paceSteps(steps, performance.now() - runStartMs);
  }
}

function startSequences(
  session: BatchSession,
  prompts: readonly Uint32Array[],
  { sampling, maxTokens = Infinity }: GenerateOptions,
): Going[] {
  if (!(maxTokens >= 1)) throw new RangeError(`maxTokens is ${maxTokens}, must be 1 or more`);
  return prompts.map(({ length }, index) => {
    const start = session.lengths[index] + length;
    return {
      index,
      ...(sampling && { sampling: { ...sampling, seed: (sampling.seed + index) % 2 ** 32 } }),
      start,
      promptTokens: length,
      limit: Math.min(maxTokens, session.capacity - start + 1),
      tokens: 0,
      endMs: 0,
    };
  });
}

/** How the tokens of some sequences are drawn; undefined for the most likely ones. */
function samplingOf(sequences: readonly Going[]): Sampling[] | undefined {
  const samplings = sequences.flatMap(({ sampling }) => sampling ?? []);
  return samplings.length > 0 ? samplings : undefined;
}

/** Takes what was chosen for a sequence; returns the tokens that belong to it. */
function takeTokens(
  sequence: Going,
  chosen: Uint32Array<ArrayBuffer>,
  stopTokens: readonly number[],
): Uint32Array<ArrayBuffer> {
  const stop = chosen.findIndex((token) => stopTokens.includes(token));
  const kept = stop < 0 ? chosen : chosen.subarray(0, stop);
  sequence.tokens += kept.length;
  if (stop >= 0) end(sequence, "stop token");
  else if (sequence.tokens >= sequence.limit) end(sequence, "length");
  return kept;
}

function end(sequence: Going, reason: GenerateSummary["reason"]): void {
  sequence.reason = reason;
  sequence.endMs = performance.now();
}

/** How all went; what was computed beyond the texts is forgotten. */
function summarize(
  session: BatchSession,
  sequences: readonly Going[],
  startMs: number,
  firstMs: number,
): GenerateSummary[] {
  return sequences.map(({ index, start, promptTokens, tokens, reason = "aborted", endMs }) => {
    session.truncate(index, Math.min(session.lengths[index], start + tokens));
    const tokensPerSecond = Math.max(0, tokens - 1) / Math.max(1e-9, (endMs - firstMs) / 1000);
    return { promptTokens, tokens, reason, firstTokenMs: firstMs - startMs, tokensPerSecond };
  });
}

/** Generates the text of each sequence. @throws as {@linkcode generateBatchTokens} */
export async function* generateBatchText(
  session: BatchSession,
  tokenizer: Tokenizer,
  prompts: readonly Uint32Array<ArrayBuffer>[],
  options: GenerateOptions = {},
): AsyncGenerator<BatchText, GenerateSummary[]> {
  const streams = prompts.map(() => createTextStream(tokenizer));
  const runs = generateBatchTokens(session, prompts, options);
  while (true) {
    const { value, done } = await runs.next();
    if (!done) {
      const text = streams[value.index].push(value.tokens);
      if (text !== "") yield { index: value.index, text };
      continue;
    }
    for (const [index, stream] of streams.entries()) {
      const text = stream.finish();
      if (text !== "") yield { index, text };
    }
    return value;
  }
}
