// Text that a model writes itself, on the device.
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import { createRandom, type Random } from "../../quant/random.ts";
import { MAX_SEQUENCES } from "../engine/decode_step.ts";
import type { Engine } from "../engine/engine.ts";
import { cacheBytes } from "../engine/sequence_cache.ts";
import type { Session } from "../engine/session.ts";
import { letOthersRun } from "../host/event_loop.ts";
import type { WindowPlan } from "../text/windows.ts";
import { kindsOfStarts, type Write } from "./self_starts.ts";

export interface SelfTextPlan extends WindowPlan {
  /** Of where texts start and of every draw. */
  readonly seed: number;
  /** Told of the windows that are full. */
  readonly onProgress?: (windows: number) => void;
  /** Ends the writing with its reason. */
  readonly signal?: AbortSignal;
}

/** Tokens of the shortest window: room for where a text starts, and for some of it. */
const LEAST_TOKENS = 32;

/**
 * Writes windows at temperature 1, from all kinds of starts. A window begins with a text and, where that ends before the
 * window does, goes on with further ones; what doesn't fit is left out. The same weights, plan, device and room there give
 * the same.
 *
 * @returns `plan.count` windows of `plan.length` tokens, in which kinds take turns
 * @throws {RangeError} where the model ends its texts at once, or a window is too short or longer than its context
 * @throws {OutOfMemoryError} when the device has no room for the sequences
 */
export async function writeSelfText(engine: Engine, plan: SelfTextPlan): Promise<Uint32Array<ArrayBuffer>[]> {
  const { length, seed, signal } = plan;
  if (length < LEAST_TOKENS) {
    throw new RangeError(`a self-written window has ${length} tokens, must have at least ${LEAST_TOKENS}`);
  }
  using session = await openSession(engine, plan);
  const random = createRandom(seed);
  const write = createWriter(session, engine.prompts.stopTokens, random, signal);
  const parts: Uint32Array<ArrayBuffer>[][] = [];
  for (const { windows, makePrompts } of await kindsOfStarts(engine, plan, random, write)) {
    const before = parts.flat().length;
    const writeSome = async () => await writeTexts(await makePrompts(session.sequences));
    parts.push(await fillWindows(windows, length, writeSome, (full) => plan.onProgress?.(before + full)));
  }
  return takeTurns(parts);

  /** Texts with their prompts, without those that ended at once. */
  async function writeTexts(prompts: readonly Uint32Array<ArrayBuffer>[]): Promise<Uint32Array<ArrayBuffer>[]> {
    if (prompts.length === 0) return [];
    const longest = Math.max(...prompts.map((prompt) => prompt.length));
    const written = await write(prompts, length - longest);
    return prompts.flatMap((prompt, i) => written[i].length > 0 ? [Uint32Array.from([...prompt, ...written[i]])] : []);
  }
}

/** Bytes of the keys and values of texts that are written together: a batch of 7B has 32 of 512 tokens. */
const CACHE_BYTES = 2 ** 33;

/** Sequences for as many texts at once as the device binds and has room for: a step of many takes little longer. */
async function openSession(engine: Engine, { length, count }: WindowPlan): Promise<Session> {
  const textBytes = cacheBytes(engine.config, length);
  const bound = 2 * engine.config.layers * engine.gpu.device.limits.maxStorageBufferBindingSize;
  const most = Math.min(MAX_SEQUENCES, 2 * count, Math.floor(Math.min(bound, CACHE_BYTES) / textBytes));
  for (let sequences = Math.max(1, most);; sequences = Math.floor(sequences / 2)) {
    try {
      return await engine.createSession(length, sequences);
    } catch (error) {
      if (sequences === 1 || !(error instanceof OutOfMemoryError)) throw error;
    }
  }
}

/**
 * Steps between two looks at what was written. They don't follow the clock, and all sequences take part in each, since
 * kernels round by how many do: else texts would depend on how fast the host is.
 */
const RUN_STEPS = 32;

/** Writes with one session, which forgets each batch before the next. */
function createWriter(session: Session, stopTokens: readonly number[], random: Random, signal?: AbortSignal): Write {
  const all = Array.from({ length: session.sequences }, (_, i) => i);
  const endOf = (tokens: readonly number[]) => tokens.findIndex((token) => stopTokens.includes(token));
  return async (prompts, limit) => {
    for (const i of all) session.truncate(i, 0);
    const sampling = all.map(() => ({ temperature: 1, topP: 1, topK: 0, seed: random.integer(2 ** 32) }));
    const written = Array.from(await session.prefill(prompts, sampling, signal), (token) => [token]);
    for (let steps = 1; steps < limit && written.some((tokens) => endOf(tokens) < 0);) {
      await letOthersRun();
      signal?.throwIfAborted();
      const count = Math.min(RUN_STEPS, limit - steps);
      for (const [i, tokens] of (await session.decode(all, count, sampling)).entries()) written[i].push(...tokens);
      steps += count;
    }
    return written.map((tokens) => Uint32Array.from(endOf(tokens) < 0 ? tokens : tokens.slice(0, endOf(tokens))));
  };
}

/** Packs texts into `count` windows. @throws {RangeError} where no text comes */
async function fillWindows(
  count: number,
  length: number,
  writeTexts: () => Promise<readonly Uint32Array[]>,
  onProgress: (windows: number) => void,
): Promise<Uint32Array<ArrayBuffer>[]> {
  const windows: Uint32Array<ArrayBuffer>[] = [];
  let open: number[] = [];
  while (windows.length < count) {
    const texts = await writeTexts();
    if (texts.length === 0) throw new RangeError("the model ends all of its texts at once, must write some tokens");
    for (const text of texts) {
      open.push(...text.subarray(0, length - open.length));
      if (open.length < length) continue;
      windows.push(Uint32Array.from(open));
      open = [];
    }
    onProgress(Math.min(count, windows.length));
  }
  return windows.slice(0, count);
}

/** All entries of several lists, each list spread evenly over the whole. */
export function takeTurns<T>(lists: readonly (readonly T[])[]): T[] {
  const placed = lists.flatMap((list) => list.map((entry, i) => ({ entry, place: (i + 0.5) / list.length })));
  return placed.sort((a, b) => a.place - b.place).map(({ entry }) => entry);
}
