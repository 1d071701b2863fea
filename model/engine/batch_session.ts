/**
 * Several sequences of tokens on the device that go on together: a step takes one token of each.
 *
 * @module
 */
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { NOT_A_NUMBER_TOKEN, packSampling, type Sampling, SAMPLING_BYTES } from "../../kernels/tokens/pick_token.ts";
import { createPrefillRange, setPrefillRange } from "../../kernels/tokens/prefill_range.ts";
import {
  type BatchBuffers,
  type BatchStep,
  createBatchBuffers,
  createBatchStep,
  forTokens,
  MAX_SEQUENCES,
  stepSize,
} from "./batch_step.ts";
import { type BufferOwner, withOwner } from "./buffer_owner.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createExclusive } from "../host/exclusive.ts";
import { createPrefill, type Prefill } from "./prefill.ts";
import { cacheBytes, checkCapacity } from "./sequence_cache.ts";

/** Checks that a batch can have so many sequences. @throws {RangeError} */
export function checkSequences(sequences: number): void {
  if (Number.isInteger(sequences) && sequences >= 1 && sequences <= MAX_SEQUENCES) return;
  throw new RangeError(`a batch of ${sequences}, must have 1 to ${MAX_SEQUENCES} sequences`);
}

/**
 * Sequences 0, 1, ... of a model, each with a position of its own. The cache holds the first tokens of each; the next may
 * be known too: chosen, but not taken in yet. One call at a time. Dispose it to free its cache.
 */
export class BatchSession implements Disposable {
  /** Number of sequences. */
  readonly sequences: number;
  /** Tokens that the cache has room for, in each sequence. */
  readonly capacity: number;
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: BatchBuffers;
  readonly #owner: BufferOwner;
  /** Steps by the most tokens that they take. */
  readonly #steps = new Map<number, BatchStep>();
  readonly #exclusive = createExclusive("the batch");
  #prefill: Prefill | undefined;
  readonly #lengths: number[];
  /** Known tokens of each sequence. */
  readonly #tokens: number[][];

  /** Use {@linkcode createBatchSession}. */
  constructor(
    gpu: Gpu,
    weights: EngineWeights,
    buffers: BatchBuffers,
    owner: BufferOwner,
    sequences: number,
    capacity: number,
  ) {
    this.#gpu = gpu;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#owner = owner;
    this.sequences = sequences;
    this.capacity = capacity;
    this.#lengths = new Array(this.sequences).fill(0);
    this.#tokens = Array.from({ length: this.sequences }, () => []);
  }

  /** Tokens of each sequence that are in the cache. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /**
   * Takes tokens into each sequence, one sequence after the other, and chooses those that follow.
   *
   * @param prompts tokens for each sequence, at least one
   * @param sampling how, for each sequence; by default the most likely tokens
   * @param signal ends the work between two passes; what was taken in by then stays
   * @returns the token chosen for each sequence, which is not in the cache yet
   * @throws {TypeError} when there are not as many prompts, or settings, as sequences
   * @throws {RangeError} when a prompt is empty or has no room, or a token is outside the vocabulary
   * @throws {Error} when logits are not numbers
   * @throws the signal's reason
   */
  prefill(
    prompts: readonly Uint32Array<ArrayBuffer>[],
    sampling?: readonly Sampling[],
    signal?: AbortSignal,
  ): Promise<Uint32Array<ArrayBuffer>> {
    return this.#exclusive.run(async () => {
      if (prompts.length !== this.sequences) {
        throw new TypeError(`${prompts.length} prompts, must be one for each of ${this.sequences} sequences`);
      }
      for (const [i, prompt] of prompts.entries()) this.#checkPrompt(i, prompt);
      const all = Array.from(prompts.keys());
      const step = await this.#startStep(all, prompts.map(({ length }, i) => this.#lengths[i] + length - 1), sampling);
      for (const i of all) await this.#takeIn(i, prompts[i], signal);
      this.#gpu.submit(forTokens([...step.head, ...pickOf(step, sampling)], all.length));
      return Uint32Array.from((await this.#readChosen(all, 1)).flatMap((tokens) => [...tokens]));
    });
  }

  /**
   * Takes the token in that is known to follow in some sequences, chooses the next, and so on; nothing waits for the host
   * until all are chosen. The other sequences stay as they are.
   *
   * @param sequences indices, each at most once
   * @param count tokens of each
   * @param sampling how, for each of `sequences`; by default the most likely tokens
   * @returns the `count` tokens chosen for each of `sequences`; the last is not in the cache yet
   * @throws {TypeError} when there are not as many settings as sequences
   * @throws {RangeError} when there is no such sequence, no room in it, or no token to go on from
   * @throws {Error} when logits are not numbers
   */
  decode(
    sequences: readonly number[],
    count: number,
    sampling?: readonly Sampling[],
  ): Promise<Uint32Array<ArrayBuffer>[]> {
    return this.#exclusive.run(async () => {
      this.#checkSequences(sequences);
      for (const sequence of sequences) this.#checkNext(sequence, count);
      const step = await this.#startStep(sequences, sequences.map((i) => this.#lengths[i]), sampling);
      this.#gpu.write(this.#buffers.tokens, Uint32Array.from(sequences, (i) => this.#tokens[i][this.#lengths[i]]));
      this.#gpu.submit(step.embed);
      const dispatches = forTokens([...step.layers, ...step.head, ...pickOf(step, sampling)], sequences.length);
      // A submit for each step, so that the device works on one while the next is encoded.
      for (let i = 0; i < count; i++) this.#gpu.submit(dispatches);
      for (const sequence of sequences) this.#lengths[sequence] += count;
      return await this.#readChosen(sequences, count);
    });
  }

  /** Logits from which the last tokens were chosen, f32 [sequences, vocabulary]: first those of the last call, in its order. */
  logits(): Promise<Float32Array<ArrayBuffer>> {
    return this.#gpu.readF32(this.#buffers.logits);
  }

  /** Takes tokens out of a sequence from `length` on; the one at `length` stays known, and {@linkcode decode} goes on from it. */
  truncate(sequence: number, length: number): void {
    this.#checkSequences([sequence]);
    if (!(Number.isInteger(length) && length >= 0 && length <= this.#lengths[sequence])) {
      throw new RangeError(`length is ${length}, must be 0 to ${this.#lengths[sequence]}`);
    }
    this.#lengths[sequence] = length;
    this.#tokens[sequence].splice(length + 1);
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    this.#exclusive.close();
    this.#prefill?.destroy();
    this.#owner.destroy();
  }

  #checkSequences(sequences: readonly number[]): void {
    const isOne = (i: number) => Number.isInteger(i) && i >= 0 && i < this.sequences;
    if (sequences.length === 0 || !sequences.every(isOne) || new Set(sequences).size < sequences.length) {
      throw new RangeError(
        `sequences are ${sequences.join(", ") || "none"}, must be some of 0 to ${this.sequences - 1}`,
      );
    }
  }

  #checkPrompt(sequence: number, prompt: Uint32Array): void {
    const { vocabulary } = this.#weights.config;
    this.#checkRoom(sequence, prompt.length);
    const outside = prompt.findIndex((token) => token >= vocabulary);
    if (outside < 0) return;
    const token = `token ${outside} of sequence ${sequence} is ${prompt[outside]}`;
    throw new RangeError(`${token}, must be below ${vocabulary}`);
  }

  #checkNext(sequence: number, count: number): void {
    this.#checkRoom(sequence, count);
    const length = this.#lengths[sequence];
    if (this.#tokens[sequence].length > length) return;
    throw new RangeError(`no token is known at position ${length} of sequence ${sequence}, must have a prompt before`);
  }

  #checkRoom(sequence: number, tokens: number): void {
    if (!(Number.isInteger(tokens) && tokens >= 1)) {
      throw new RangeError(`${tokens} tokens for sequence ${sequence}, must be 1 or more`);
    }
    const length = this.#lengths[sequence] + tokens;
    if (length > this.capacity) {
      throw new RangeError(
        `sequence ${sequence} would have ${length} tokens, must have at most its capacity of ${this.capacity}`,
      );
    }
  }

  /** Says which sequences the next steps take, from which positions on, and how their tokens are drawn. */
  async #startStep(
    sequences: readonly number[],
    positions: readonly number[],
    sampling: readonly Sampling[] | undefined,
  ): Promise<BatchStep> {
    const { sequence, settings } = this.#buffers;
    if (sampling && sampling.length !== sequences.length) {
      throw new TypeError(
        `${sampling.length} settings of sampling, must be one for each of ${sequences.length} sequences`,
      );
    }
    for (const [i, each] of sampling?.entries() ?? []) {
      this.#gpu.write(settings, packSampling(each), i * SAMPLING_BYTES);
    }
    const size = stepSize(sequences.length);
    const step = this.#steps.get(size) ?? await this.#createStep(size);
    setPrefillRange(this.#gpu, step.range, sequences.length, 0);
    this.#gpu.write(sequence, Uint32Array.from(sequences.flatMap((index, i) => [positions[i], index])));
    return step;
  }

  async #createStep(size: number): Promise<BatchStep> {
    const range = await createPrefillRange(this.#gpu, size);
    this.#owner.own(range.buffer);
    const step = await createBatchStep(this.#gpu, this.#weights, range, this.#buffers);
    this.#steps.set(size, step);
    return step;
  }

  /** Takes a prompt into a sequence; the residual stream of its last token becomes that of the step. */
  async #takeIn(sequence: number, prompt: Uint32Array<ArrayBuffer>, signal: AbortSignal | undefined): Promise<void> {
    const prefill = this.#prefill ??= await createPrefill(this.#gpu, this.#weights, this.#buffers);
    const rowBytes = this.#weights.config.hidden * 4;
    const known = this.#tokens[sequence];
    for await (const part of prefill.takeIn(prompt, this.#lengths[sequence], signal, sequence)) {
      this.#gpu.copy(prefill.hidden, (part.length - 1) * rowBytes, this.#buffers.hidden, sequence * rowBytes, rowBytes);
      known.splice(this.#lengths[sequence], Infinity, ...part);
      this.#lengths[sequence] += part.length;
    }
    await this.#gpu.wait();
  }

  /** Reads the last `count` tokens chosen for each of some sequences, of which the last follows the cache. */
  async #readChosen(sequences: readonly number[], count: number): Promise<Uint32Array<ArrayBuffer>[]> {
    const { caches: [{ capacity }], chosen, gathered } = this.#buffers;
    const sizeBytes = count * 4;
    for (const [i, sequence] of sequences.entries()) {
      const first = sequence * (capacity + 1) + this.#lengths[sequence] - count + 1;
      this.#gpu.copy(chosen, first * 4, gathered, i * sizeBytes, sizeBytes);
    }
    const bytes = await this.#gpu.read(gathered, sequences.length * sizeBytes);
    const tokens = sequences.map((_, i) => new Uint32Array(bytes, i * sizeBytes, count));
    const errors = sequences.flatMap((sequence, i) => this.#learn(sequence, tokens[i]));
    if (errors.length > 0) throw errors[0];
    return tokens;
  }

  /** Takes note of tokens chosen for a sequence, which ends before the first that is none. */
  #learn(sequence: number, tokens: Uint32Array): Error[] {
    const failed = tokens.indexOf(NOT_A_NUMBER_TOKEN);
    const known = this.#tokens[sequence];
    known.push(...(failed < 0 ? tokens : tokens.subarray(0, failed)));
    if (failed < 0) return [];
    this.#lengths[sequence] = known.length;
    return [new Error(`logits at position ${known.length - 1} of sequence ${sequence} are not numbers`)];
  }
}

function pickOf({ pickBest, pickSampled }: BatchStep, sampling: readonly Sampling[] | undefined): readonly Dispatch[] {
  return sampling ? pickSampled : pickBest;
}

/**
 * Makes empty sequences, each with room for `capacity` tokens.
 *
 * @param sequences 1 to {@linkcode MAX_SEQUENCES}
 * @throws {RangeError} for another number of them, when the model's context is shorter, or the device can't bind so large
 * a cache
 * @throws {OutOfMemoryError} with what the caches need, when the device has no room
 */
export async function createBatchSession(
  gpu: Gpu,
  weights: EngineWeights,
  sequences: number,
  capacity: number,
): Promise<BatchSession> {
  checkSequences(sequences);
  const { config } = weights;
  checkCapacity(gpu, config, capacity, sequences);
  try {
    return await withOwner(gpu, async (owner) => {
      const buffers = await createBatchBuffers(gpu, config, sequences, capacity, owner);
      return new BatchSession(gpu, weights, buffers, owner, sequences, capacity);
    });
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    const needed = sequences * cacheBytes(config, capacity);
    const message =
      `${sequences} sequences of ${capacity} tokens need ${needed} bytes of device memory for their keys ` +
      `and values: ${error.message}`;
    throw new OutOfMemoryError(message, needed, error.heldBytes);
  }
}
