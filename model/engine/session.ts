/**
 * One sequence of tokens on the device: its key-value cache, its position, and the steps that extend it.
 *
 * @module
 */
import { chooseSplits, partialsLength } from "../../kernels/attention/decode_attention.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import {
  CANDIDATES,
  NOT_A_NUMBER_TOKEN,
  packSampling,
  type Sampling,
  SAMPLING_BYTES,
} from "../../kernels/tokens/pick_token.ts";
import { createPrefillRange } from "../../kernels/tokens/prefill_range.ts";
import { type BufferOwner, withOwner } from "./buffer_owner.ts";
import type { ModelConfig } from "../llama/config.ts";
import { attentionShape, createDecodeStep, type DecodeBuffers, type DecodeStep } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createExclusive } from "../host/exclusive.ts";
import { createPrefill, type Prefill } from "./prefill.ts";
import { rotationTable } from "../llama/rope.ts";
import { checkCapacity, createCaches, roundCapacity } from "./sequence_cache.ts";
import { createTokenScorer, type OnLogits, type TokenScorer, type TokenScores } from "./token_scores.ts";

/** Steps of a submit: between two submits the device does nothing for some microseconds. */
const SUBMIT_STEPS = 4;

/**
 * A sequence of tokens. Its cache holds the first {@linkcode Session.length} of them; the next may be known too: chosen,
 * but not taken in yet. One call at a time. Dispose it to free its cache.
 */
export class Session implements Disposable {
  /** Tokens that the cache has room for. */
  readonly capacity: number;
  /** A step's dispatches, to be timed. */
  readonly step: DecodeStep;
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: DecodeBuffers;
  readonly #owner: BufferOwner;
  readonly #exclusive = createExclusive("the session");
  #prefill: Prefill | undefined;
  #scorer: TokenScorer | undefined;
  #length = 0;
  /** Positions whose tokens are known, from the first on. */
  #known = 0;
  /** Position whose token's embedding is in the buffer that a decode step starts from. */
  #embedded = -1;

  /** Use {@linkcode createSession}. */
  constructor(
    gpu: Gpu,
    weights: EngineWeights,
    buffers: DecodeBuffers,
    owner: BufferOwner,
    step: DecodeStep,
    capacity: number,
  ) {
    this.#gpu = gpu;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#owner = owner;
    this.step = step;
    this.capacity = capacity;
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /**
   * Takes tokens in and chooses the one that follows.
   *
   * @param sampling how; by default the most likely token
   * @param signal ends the work between two passes; what was taken in by then stays
   * @returns the chosen token, which is not in the cache yet
   * @throws {RangeError} when there are no tokens, no room for them, or one is outside the vocabulary
   * @throws {Error} when logits are not numbers
   * @throws the signal's reason
   */
  prefill(tokens: Uint32Array<ArrayBuffer>, sampling?: Sampling, signal?: AbortSignal): Promise<number> {
    return this.#exclusive.run(async () => {
      this.#checkRoom(tokens.length);
      this.#setSampling(sampling);
      let last = 0;
      const hidden = await this.#takeIn(tokens, signal, (count) => {
        last = count - 1;
      });
      const rowBytes = this.#weights.config.hidden * 4;
      this.#gpu.copy(hidden, last * rowBytes, this.#buffers.hidden, 0, rowBytes);
      this.#gpu.write(this.#buffers.sequence, Uint32Array.of(this.#length - 1));
      this.#gpu.submit([...this.step.head.dispatches, ...this.#pick(sampling)]);
      const [token] = await this.#readChosen(1);
      return token;
    });
  }

  /**
   * Takes the token in that is known to follow, chooses the next, and so on; nothing waits for the host until all are
   * chosen.
   *
   * @param sampling how; by default the most likely token
   * @returns the `count` tokens chosen; the last is not in the cache yet
   * @throws {RangeError} when there is no room for them, or no token to go on from
   * @throws {Error} when logits are not numbers
   */
  decode(count: number, sampling?: Sampling): Promise<Uint32Array<ArrayBuffer>> {
    return this.#exclusive.run(async () => {
      this.#checkRoom(count);
      if (this.#known <= this.#length) {
        throw new RangeError(`no token is known at position ${this.#length}, must have a prompt before`);
      }
      this.#setSampling(sampling);
      this.#embedNext();
      // Layers in place leave their result there, and steps the next token: only known once the chosen tokens are read.
      this.#embedded = -1;
      this.#gpu.write(this.#buffers.sequence, Uint32Array.of(this.#length));
      const last = [...this.step.head.dispatches, ...this.#pick(sampling)];
      let steps: Dispatch[] = [];
      for (let i = 0; i < count; i++) {
        steps.push(...this.step.layers(this.#length++).flatMap(({ dispatches }) => dispatches), ...last);
        // The first step goes by itself, so that the device has work while the others are encoded.
        if (i % SUBMIT_STEPS === 0 || i === count - 1) {
          this.#gpu.submit(steps);
          steps = [];
        }
      }
      return await this.#readChosen(count);
    });
  }

  /** Logits from which the last token was chosen, f32 [vocabulary]. */
  logits(): Promise<Float32Array<ArrayBuffer>> {
    return this.#gpu.readF32(this.#buffers.logits, this.#weights.config.vocabulary);
  }

  /**
   * Takes tokens in and scores what each of them predicts.
   *
   * @param targets the token that follows each of `tokens`
   * @param onLogits called with logits f32 [rows, vocabulary] and the index of the first row, part by part
   * @throws {RangeError} when there is no room for them, or a token is outside the vocabulary
   */
  score(
    tokens: Uint32Array<ArrayBuffer>,
    targets: Uint32Array<ArrayBuffer>,
    onLogits?: OnLogits,
  ): Promise<TokenScores> {
    return this.#exclusive.run(() => this.#score(tokens, targets, onLogits));
  }

  async #score(
    tokens: Uint32Array<ArrayBuffer>,
    targets: Uint32Array<ArrayBuffer>,
    onLogits?: OnLogits,
  ): Promise<TokenScores> {
    this.#checkRoom(tokens.length);
    if (targets.length !== tokens.length) {
      throw new TypeError(`${targets.length} targets, must be one for each of ${tokens.length} tokens`);
    }
    this.#checkTokens(targets);
    const scorer = this.#scorer ??= await createTokenScorer(this.#gpu, this.#weights);
    const logLikelihoods = new Float32Array(tokens.length);
    const best = new Uint32Array(tokens.length);
    let at = 0;
    await this.#takeIn(tokens, undefined, async (count, hidden) => {
      const start = at;
      const scores = await scorer.score(
        hidden,
        targets.slice(at, at + count),
        onLogits && ((logits, first) => onLogits(logits, start + first)),
      );
      logLikelihoods.set(scores.logLikelihoods, at);
      best.set(scores.best, at);
      at += count;
    });
    const failed = logLikelihoods.findIndex(Number.isNaN);
    if (failed >= 0) throw new Error(`logits at position ${this.#length - tokens.length + failed} are not numbers`);
    return { logLikelihoods, best };
  }

  /** Takes tokens out of the cache from `length` on; the one at `length` stays known, and {@linkcode decode} goes on from it. */
  truncate(length: number): void {
    if (!(Number.isInteger(length) && length >= 0 && length <= this.#length)) {
      throw new RangeError(`length is ${length}, must be 0 to ${this.#length}`);
    }
    this.#length = length;
    this.#known = Math.min(this.#known, length + 1);
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.#exclusive.close();
    this.#prefill?.destroy();
    this.#scorer?.destroy();
    this.step.destroy();
    this.#owner.destroy();
  }

  #checkTokens(tokens: Uint32Array): void {
    const { vocabulary } = this.#weights.config;
    const outside = tokens.findIndex((token) => token >= vocabulary);
    if (outside >= 0) throw new RangeError(`token ${outside} is ${tokens[outside]}, must be below ${vocabulary}`);
  }

  #checkRoom(tokens: number): void {
    if (!(Number.isInteger(tokens) && tokens >= 1)) throw new RangeError(`${tokens} tokens, must be 1 or more`);
    if (this.#length + tokens > this.capacity) {
      throw new RangeError(
        `the sequence would have ${this.#length + tokens} tokens, must have at most its capacity of ${this.capacity}`,
      );
    }
  }

  /** Takes tokens into the cache, pass by pass; the residual stream of a pass is there until the next. */
  async #takeIn(
    tokens: Uint32Array<ArrayBuffer>,
    signal: AbortSignal | undefined,
    onPass: (count: number, hidden: GPUBuffer) => Promise<void> | void,
  ): Promise<GPUBuffer> {
    this.#checkTokens(tokens);
    const prefill = this.#prefill ??= await createPrefill(this.#gpu, this.#weights, this.#buffers);
    for await (const part of prefill.takeIn(tokens, this.#length, signal)) {
      this.#gpu.write(this.#buffers.tokens, part, this.#length * 4);
      this.#embedded = -1;
      await onPass(part.length, prefill.hidden);
      this.#length += part.length;
      this.#known = this.#length;
    }
    return prefill.hidden;
  }

  /** Makes the embedding of the token at the session's length the next step's input, where it isn't. */
  #embedNext(): void {
    if (this.#embedded === this.#length) return;
    this.#gpu.copy(this.#buffers.tokens, this.#length * 4, this.#buffers.next, 0, 4);
    this.#gpu.submit(this.step.embed);
  }

  #setSampling(sampling: Sampling | undefined): void {
    if (sampling) this.#gpu.write(this.#buffers.settings, packSampling(sampling));
  }

  #pick(sampling: Sampling | undefined) {
    return (sampling ? this.step.pickSampled : this.step.pickBest).dispatches;
  }

  /** Reads the last `count` tokens chosen, of which the last follows the cache. */
  async #readChosen(count: number): Promise<Uint32Array<ArrayBuffer>> {
    const first = this.#length - count + 1;
    const tokens = new Uint32Array(await this.#gpu.read(this.#buffers.tokens, count * 4, first * 4));
    const failed = tokens.indexOf(NOT_A_NUMBER_TOKEN);
    this.#known = failed >= 0 ? first + failed : this.#length + 1;
    if (failed >= 0) {
      await this.#checkRelay();
      throw new Error(`logits at position ${first + failed - 1} are not numbers`);
    }
    this.#embedded = this.#length;
    return tokens;
  }

  /** @throws {Error} when workgroups of a layer waited for one that didn't run; later steps then start afresh */
  async #checkRelay(): Promise<void> {
    const { relay } = this.step;
    if (!relay || new Uint32Array(await this.#gpu.read(relay, 4))[0] === 0) return;
    this.#gpu.write(relay, new Uint32Array(1));
    throw new Error("workgroups of a layer waited in vain for others, want all of them to run side by side");
  }
}

/**
 * Makes an empty sequence.
 *
 * @param capacity tokens to have room for
 * @throws {RangeError} when the model's context is shorter, or the device can't bind so long a cache
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createSession(gpu: Gpu, weights: EngineWeights, capacity: number): Promise<Session> {
  const { config } = weights;
  checkCapacity(gpu, config, capacity);
  return await withOwner(gpu, async (owner) => {
    const buffers = await createBuffers(gpu, config, roundCapacity(capacity), owner);
    const step = await createDecodeStep(gpu, weights, buffers);
    return new Session(gpu, weights, buffers, owner, step, capacity);
  });
}

async function createBuffers(
  gpu: Gpu,
  config: ModelConfig,
  capacity: number,
  owner: BufferOwner,
): Promise<DecodeBuffers> {
  const { hidden, heads, keyValueHeads, headSize, intermediate, vocabulary } = config;
  const words = owner.make;
  const shape = attentionShape(config);
  const splits = chooseSplits(gpu.profile, shape, capacity);
  const oneToken = await createPrefillRange(gpu, 1);
  owner.own(oneToken.buffer);
  const widest = Math.max(hidden, heads * headSize, intermediate);
  return {
    hidden: await words("hidden", hidden),
    embedded: await words("embedded", hidden),
    qkv: await words("qkv", (heads + 2 * keyValueHeads) * headSize),
    partials: await words("partials", partialsLength(shape, splits)),
    gateUp: await words("gate and up", 2 * intermediate),
    inner: await words("inner", intermediate),
    scratch: await words("scratch", Math.ceil(widest / 8) * 4),
    logits: await words("logits", vocabulary),
    candidates: await words("candidates", 2 * CANDIDATES),
    settings: await words("sampling", SAMPLING_BYTES / 4),
    sequence: await words("sequence", 2),
    tokens: await words("tokens", capacity + 1),
    next: await words("next token", 1),
    rotations: owner.own(await gpu.uploadStorage("rotations", rotationTable(config.rope, headSize, capacity))),
    caches: await createCaches(gpu, owner, config, capacity),
    oneToken,
  };
}
