/**
 * One sequence of tokens on the device: its key-value cache, its position, and the steps that extend it.
 *
 * @module
 */
import { chooseSplits, partialsLength } from "../kernels/decode_attention.ts";
import type { Gpu } from "../kernels/gpu.ts";
import type { KeyValueCache } from "../kernels/key_value_cache.ts";
import { CANDIDATES, NOT_A_NUMBER_TOKEN, packSampling, type Sampling, SAMPLING_BYTES } from "../kernels/pick_token.ts";
import { createPrefillRange } from "../kernels/prefill_range.ts";
import type { ModelConfig } from "./config.ts";
import { attentionShape, createDecodeStep, type DecodeBuffers, type DecodeStep } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createPrefill, PASS_TOKENS, type Prefill } from "./prefill.ts";
import { rotationTable } from "./rope.ts";
import { createTokenScorer, type OnLogits, type TokenScorer, type TokenScores } from "./token_scores.ts";

/** Sequences have room for a multiple of so many tokens, since a kernel is compiled for each capacity. */
const CAPACITY_STEP = 256;

/** Bytes of a sequence's key-value cache: keys and values in f16. */
export function cacheBytes({ layers, keyValueHeads, headSize }: ModelConfig, capacity: number): number {
  return 2 * 2 * layers * keyValueHeads * headSize * roundCapacity(capacity);
}

function roundCapacity(tokens: number): number {
  return Math.ceil(tokens / CAPACITY_STEP) * CAPACITY_STEP;
}

/** A sequence of tokens. Dispose it to free its cache. */
export class Session implements Disposable {
  /** Tokens that the cache has room for. */
  readonly capacity: number;
  /** A step's dispatches, to be timed. */
  readonly step: DecodeStep;
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: DecodeBuffers;
  readonly #owned: readonly GPUBuffer[];
  #prefill: Prefill | undefined;
  #scorer: TokenScorer | undefined;
  #length = 0;

  /** Use {@linkcode createSession}. */
  constructor(
    gpu: Gpu,
    weights: EngineWeights,
    buffers: DecodeBuffers,
    owned: readonly GPUBuffer[],
    step: DecodeStep,
  ) {
    this.#gpu = gpu;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#owned = owned;
    this.step = step;
    this.capacity = buffers.caches[0].capacity;
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /**
   * Takes tokens in and chooses the one that follows.
   *
   * @param sampling how; by default the most likely token
   * @returns the chosen token, which is not in the cache yet
   * @throws {RangeError} when there are no tokens, or no room for them
   * @throws {Error} when logits are not numbers
   */
  async prefill(tokens: Uint32Array<ArrayBuffer>, sampling?: Sampling): Promise<number> {
    this.#checkRoom(tokens.length);
    let last = 0;
    const hidden = await this.#takeIn(tokens, (count) => {
      last = count - 1;
    });
    const rowBytes = this.#weights.config.hidden * 4;
    this.#gpu.copy(hidden, last * rowBytes, this.#buffers.hidden, 0, rowBytes);
    this.#gpu.write(this.#buffers.sequence, Uint32Array.of(this.#length - 1));
    this.#setSampling(sampling);
    this.#gpu.submit([...this.step.head.dispatches, ...this.#pick(sampling)]);
    const [token] = await this.#readTokens(this.#length, 1);
    return token;
  }

  /**
   * Takes the token chosen last in, chooses the next, and so on; nothing waits for the host until all are chosen.
   *
   * @param sampling how; by default the most likely token
   * @returns the `count` tokens chosen; the last is not in the cache yet
   * @throws {RangeError} when there is no room for them
   * @throws {Error} when logits are not numbers
   */
  async decode(count: number, sampling?: Sampling): Promise<Uint32Array<ArrayBuffer>> {
    this.#checkRoom(count);
    if (this.#length === 0) throw new RangeError("the sequence is empty, must have a prompt first");
    this.#setSampling(sampling);
    this.#gpu.write(this.#buffers.sequence, Uint32Array.of(this.#length));
    const last = [...this.step.head.dispatches, ...this.#pick(sampling)];
    // A submit for each token, so that the device works on one while the next is encoded.
    for (let i = 0; i < count; i++) {
      const layers = this.step.layers(this.#length++).flatMap(({ dispatches }) => dispatches);
      this.#gpu.submit([...layers, ...last]);
    }
    return await this.#readTokens(this.#length - count + 1, count);
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
   * @throws {RangeError} when there is no room for them
   */
  async score(
    tokens: Uint32Array<ArrayBuffer>,
    targets: Uint32Array<ArrayBuffer>,
    onLogits?: OnLogits,
  ): Promise<TokenScores> {
    this.#checkRoom(tokens.length);
    if (targets.length !== tokens.length) {
      throw new TypeError(`${targets.length} targets, must be one for each of ${tokens.length} tokens`);
    }
    const scorer = this.#scorer ??= await createTokenScorer(this.#gpu, this.#weights);
    const logLikelihoods = new Float32Array(tokens.length);
    const best = new Uint32Array(tokens.length);
    let at = 0;
    await this.#takeIn(tokens, async (count, hidden) => {
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
    return { logLikelihoods, best };
  }

  /** Forgets all tokens from `length` on. The token chosen last stays the one that {@linkcode decode} takes in next. */
  truncate(length: number): void {
    if (!(length >= 0 && length <= this.#length)) {
      throw new RangeError(`length is ${length}, must be 0 to ${this.#length}`);
    }
    this.#length = length;
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.#prefill?.destroy();
    this.#scorer?.destroy();
    for (const buffer of this.#owned) this.#gpu.destroyBuffer(buffer);
  }

  #checkRoom(tokens: number): void {
    if (tokens < 1) throw new RangeError(`${tokens} tokens, must be 1 or more`);
    if (this.#length + tokens > this.capacity) {
      throw new RangeError(
        `the sequence would have ${this.#length + tokens} tokens, must have at most its capacity of ${this.capacity}`,
      );
    }
  }

  /** Takes tokens into the cache, pass by pass; the residual stream of a pass is there until the next. */
  async #takeIn(
    tokens: Uint32Array<ArrayBuffer>,
    onPass: (count: number, hidden: GPUBuffer) => Promise<void> | void,
  ): Promise<GPUBuffer> {
    const prefill = this.#prefill ??= await createPrefill(this.#gpu, this.#weights, this.#buffers);
    for (let first = 0; first < tokens.length; first += PASS_TOKENS) {
      const part = tokens.slice(first, first + PASS_TOKENS);
      await prefill.run(part, this.#length);
      await onPass(part.length, prefill.hidden);
      this.#length += part.length;
    }
    return prefill.hidden;
  }

  #setSampling(sampling: Sampling | undefined): void {
    if (sampling) this.#gpu.write(this.#buffers.settings, packSampling(sampling));
  }

  #pick(sampling: Sampling | undefined) {
    return (sampling ? this.step.pickSampled : this.step.pickBest).dispatches;
  }

  async #readTokens(first: number, count: number): Promise<Uint32Array<ArrayBuffer>> {
    const tokens = new Uint32Array(await this.#gpu.read(this.#buffers.tokens, count * 4, first * 4));
    const failed = tokens.indexOf(NOT_A_NUMBER_TOKEN);
    if (failed >= 0) throw new Error(`logits at position ${first + failed - 1} are not numbers`);
    return tokens;
  }
}

/**
 * Makes an empty sequence.
 *
 * @param capacity tokens to have room for
 * @throws {RangeError} when the model's context is shorter
 * @throws {OutOfMemoryError} when the device has no room
 */
export async function createSession(gpu: Gpu, weights: EngineWeights, capacity: number): Promise<Session> {
  const { config } = weights;
  if (!(capacity >= 1 && capacity <= config.context)) {
    throw new RangeError(`capacity is ${capacity} tokens, must be 1 to the model's context of ${config.context}`);
  }
  const owned: GPUBuffer[] = [];
  const own = async (buffer: Promise<GPUBuffer>) => {
    owned.push(await buffer);
    return await buffer;
  };
  try {
    const buffers = await createBuffers(gpu, config, roundCapacity(capacity), own);
    return new Session(gpu, weights, buffers, owned, await createDecodeStep(gpu, weights, buffers));
  } catch (error) {
    for (const buffer of owned) gpu.destroyBuffer(buffer);
    throw error;
  }
}

async function createBuffers(
  gpu: Gpu,
  config: ModelConfig,
  capacity: number,
  own: (buffer: Promise<GPUBuffer>) => Promise<GPUBuffer>,
): Promise<DecodeBuffers> {
  const { hidden, heads, keyValueHeads, headSize, intermediate, vocabulary } = config;
  const floats = (label: string, length: number) => own(gpu.createStorage(label, length * 4));
  const cacheSize = keyValueHeads * headSize * capacity * 2;
  const caches: KeyValueCache[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const keys = await own(gpu.createStorage(`keys of layer ${layer}`, cacheSize));
    const values = await own(gpu.createStorage(`values of layer ${layer}`, cacheSize));
    caches.push({ capacity, keys, values });
  }
  const shape = attentionShape(config);
  const splits = chooseSplits(gpu, shape, capacity);
  const oneToken = await createPrefillRange(gpu, 1);
  await own(Promise.resolve(oneToken.buffer));
  const widest = Math.max(hidden, heads * headSize, intermediate);
  return {
    hidden: await floats("hidden", hidden),
    qkv: await floats("qkv", (heads + 2 * keyValueHeads) * headSize),
    partials: await floats("partials", partialsLength(shape, splits)),
    gateUp: await floats("gate and up", 2 * intermediate),
    inner: await floats("inner", intermediate),
    scratch: await own(gpu.createStorage("scratch", 2 * Math.ceil(widest / 8) * 8)),
    logits: await floats("logits", vocabulary),
    candidates: await floats("candidates", 2 * CANDIDATES),
    settings: await own(gpu.createStorage("sampling", SAMPLING_BYTES)),
    sequence: await floats("sequence", 1),
    tokens: await floats("tokens", capacity + 1),
    rotations: await own(gpu.uploadStorage("rotations", rotationTable(config.rope, headSize, capacity))),
    caches,
    oneToken,
  };
}
