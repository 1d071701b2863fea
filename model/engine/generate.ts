// Generating text: tokens from the sequences of a session, text as it comes.
import type { Sampling } from "../../kernels/tokens/sampler.ts";
import { letOthersRun } from "../host/event_loop.ts";
import { createTextStream } from "../text/text_stream.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Session } from "./session.ts";

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
  /**
   * Whether pieces carry the probability that the model gave to each token, before temperature and the like. The host
   * then looks at every step, which takes longer. Default: false.
   */
  readonly logProbabilities?: boolean;
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

/** Tokens of one sequence. */
export interface TokenPiece {
  /** Which sequence: the index of its prompt. */
  readonly index: number;
  /** What comes next in it. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  /** f32: natural logarithm of the probability of each token, where asked for. */
  readonly logProbabilities?: Float32Array<ArrayBuffer>;
}

/** A piece of the text of one sequence. */
export interface TextPiece extends TokenPiece {
  /** Text that is certain with these tokens; empty within a character of several tokens. */
  readonly text: string;
}

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

/** A run of steps should take about so long: text flows, and waiting for the device costs little. */
const RUN_MS = 60;
const MAX_STEPS = 64;

/** Steps of the next run, when a run of `steps` took `tookMs`; a first run has one. */
function paceSteps(steps: number, tookMs: number): number {
  if (tookMs < RUN_MS / 2) return Math.min(MAX_STEPS, 2 * steps);
  return tookMs > 2 * RUN_MS ? Math.max(1, steps >> 1) : steps;
}

/**
 * Generates tokens of all sequences together, in runs that the device computes without the host. A sequence that has
 * ended is left out of the next run; what a run computed after its end is thrown away.
 *
 * @param prompts tokens for each sequence of the session, at least one
 * @param options for every sequence; with sampling, sequence i draws with the seed i above the one given, as it would
 * alone
 * @returns how each sequence went, by the index of its prompt; the first tokens come when all prompts are taken in
 * @throws {RangeError} when a prompt is empty or doesn't fit in its sequence
 */
export async function* generateTokens(
  session: Session,
  prompts: readonly Uint32Array<ArrayBuffer>[],
  options: GenerateOptions = {},
): AsyncGenerator<TokenPiece, GenerateSummary[]> {
  const { stopTokens = [], signal, logProbabilities = false } = options;
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
    // One token of each, since logits are those of the last step.
    const scores = logProbabilities && await session.logProbabilities(Uint32Array.from(chosen, ([token]) => token));
    for (const [i, sequence] of going.entries()) {
      const tokens = takeTokens(sequence, chosen[i], stopTokens);
      const scored = scores && { logProbabilities: scores.slice(i, i + 1) };
      if (tokens.length > 0) yield { index: sequence.index, tokens, ...scored };
    }
    going = going.filter(({ reason }) => reason === undefined);
    if (going.length === 0) return summarize(session, all, startMs, firstMs);
    await letOthersRun();
    if (signal?.aborted) return abort();
    const count = Math.min(logProbabilities ? 1 : steps, ...going.map(({ limit, tokens }) => limit - tokens));
    const runStartMs = performance.now();
    chosen = await session.decode(going.map(({ index }) => index), count, samplingOf(going));
    steps = paceSteps(steps, performance.now() - runStartMs);
  }
}

/** Checks how many tokens are asked for. @throws {RangeError} */
export function checkMaxTokens(maxTokens: number): void {
  if (maxTokens >= 1 && (Number.isInteger(maxTokens) || maxTokens === Infinity)) return;
  throw new RangeError(`maxTokens is ${maxTokens}, must be 1 or more and whole`);
}

function startSequences(
  session: Session,
  prompts: readonly Uint32Array[],
  { sampling, maxTokens = Infinity }: GenerateOptions,
): Going[] {
  checkMaxTokens(maxTokens);
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
  session: Session,
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

/** Generates the text of each sequence. @throws as {@linkcode generateTokens} */
export async function* generateText(
  session: Session,
  tokenizer: Tokenizer,
  prompts: readonly Uint32Array<ArrayBuffer>[],
  options: GenerateOptions = {},
): AsyncGenerator<TextPiece, GenerateSummary[]> {
  const streams = prompts.map(() => createTextStream(tokenizer));
  const runs = generateTokens(session, prompts, options);
  let next = await runs.next();
  for (; !next.done; next = await runs.next()) {
    const { value } = next;
    yield { ...value, text: streams[value.index].push(value.tokens) };
  }
  for (const [index, stream] of streams.entries()) {
    const text = stream.finish();
    if (text !== "") yield { index, text, tokens: new Uint32Array() };
  }
  return next.value;
}
