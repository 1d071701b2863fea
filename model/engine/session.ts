// Sequences of tokens on the device: their key-value cache, their positions, and the steps that extend them.
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { Sampling } from "../../kernels/tokens/sampler.ts";
import {
  createDecodeStep,
  createStepBuffers,
  type DecodeStep,
  MAX_SEQUENCES,
  type StepBuffers,
  stepSize,
} from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { createExclusive, type Exclusive } from "../host/exclusive.ts";
import { checkPrecision, type DecodePrecision } from "./precision.ts";
import { createPrefill, type Prefill } from "./prefill.ts";
import { cacheBytes, checkCapacity } from "./sequence_cache.ts";
import { SequenceSteps } from "./sequence_steps.ts";
import { Sequences } from "./sequences.ts";
import {
  createLikelihoodReader,
  createTokenScorer,
  type LikelihoodReader,
  type OnLogits,
  type TokenScorer,
  type TokenScores,
} from "./token_scores.ts";

/** Checks that so many sequences can go on together. @throws {RangeError} */
export function checkSequences(sequences: number): void {
  if (Number.isInteger(sequences) && sequences >= 1 && sequences <= MAX_SEQUENCES) return;
  throw new RangeError(`a batch of ${sequences}, must have 1 to ${MAX_SEQUENCES} sequences`);
}

/** Fails where the memory of the weights was freed. @throws {Error} */
function checkNotDisposed(weights: EngineWeights): void {
  if (weights.isDisposed) throw new Error("the engine is disposed, must be another");
}

/**
 * Sequences 0, 1, ... of a model, each with a position of its own; often there is one. The cache holds the first tokens
 * of each; the next may be known too: chosen, but not taken in yet. A call takes the step that is made for as many
 * sequences as take part, so that the last one of several goes on as fast as one alone. One call at a time. Dispose it
 * to free its cache.
 */
export class Session implements Disposable {
  /** Number of sequences. */
  readonly sequences: number;
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: StepBuffers;
  readonly #scope: BufferScope;
  readonly #steps: SequenceSteps;
  readonly #exclusive: Exclusive;
  #prefill: Prefill | undefined;
  #scorer: TokenScorer | undefined;
  #likelihoods: LikelihoodReader | undefined;
  readonly #known: Sequences;

  /** Use {@linkcode createSession}. */
  constructor(
    gpu: Gpu,
    weights: EngineWeights,
    buffers: StepBuffers,
    step: DecodeStep,
    capacity: number,
    scope: BufferScope,
  ) {
    this.#gpu = gpu;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#scope = scope;
    this.sequences = buffers.sequences;
    this.#exclusive = createExclusive(this.sequences === 1 ? "the session" : "the batch");
    this.#known = new Sequences(this.sequences, capacity, weights.config.vocabulary);
    this.#steps = new SequenceSteps(gpu, weights, buffers, scope, this.#known, step);
  }

  /**
   * The step of all sequences, to be timed.
   *
   * @ignore
   */
  get step(): DecodeStep {
    return this.#steps.ofAll;
  }

  /** Tokens that the cache has room for, in each sequence. */
  get capacity(): number {
    return this.#known.capacity;
  }

  /** Tokens of each sequence that are in the cache. */
  get lengths(): readonly number[] {
    return this.#known.lengths;
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
    return this.#run(async () => {
      if (prompts.length !== this.sequences) {
        throw new TypeError(`${prompts.length} prompts, must be one for each of ${this.sequences} sequences`);
      }
      for (const [i, prompt] of prompts.entries()) this.#known.checkText(i, prompt);
      const all = Array.from(prompts.keys());
      const step = await this.#steps.start(all, prompts.map(({ length }, i) => this.lengths[i] + length - 1), sampling);
      const rowBytes = this.#weights.config.hidden * 4;
      for (const i of all) {
        if (i > 0) await this.#gpu.wait();
        // The residual stream of the prompt's last token becomes that of the step.
        await this.#takeIn(i, prompts[i], signal, (hidden, length) => {
          this.#gpu.copy(hidden, (length - 1) * rowBytes, this.#buffers.hidden, i * rowBytes, rowBytes);
        });
      }
      this.#steps.choose(step, all.length, sampling);
      return Uint32Array.from((await this.#steps.readChosen(all, 1)).flatMap((tokens) => [...tokens]));
    });
  }

  /**
   * Takes the token in that is known to follow in some sequences, chooses the next, and so on; nothing waits for the
   * host until all are chosen. The other sequences stay as they are.
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
    return this.#run(async () => {
      this.#known.check(sequences);
      for (const sequence of sequences) this.#known.checkNext(sequence, count);
      return await this.#steps.take(sequences, count, sampling);
    });
  }

  /**
   * Has a token follow a sequence in place of the one chosen; {@linkcode decode} goes on from it.
   *
   * @throws {RangeError} when there is no such sequence, or the token is outside the vocabulary
   */
  setNext(sequence: number, token: number): void {
    this.#known.setNext(sequence, token);
    this.#steps.forgetEmbedded();
  }

  /** Logits from which the last tokens were chosen, f32 [sequences, vocabulary]: first those of the last call, in its order. */
  logits(): Promise<Float32Array<ArrayBuffer>> {
    return this.#run(() => this.#gpu.readF32(this.#buffers.logits));
  }

  /**
   * Natural logarithms of probabilities by the logits from which the last tokens were chosen.
   *
   * @param tokens one for each sequence of the last call, in its order
   */
  logProbabilities(tokens: Uint32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>> {
    return this.#run(async () => {
      const { logits } = this.#buffers;
      this.#likelihoods ??= await createLikelihoodReader(
        this.#gpu,
        this.#scope,
        this.step.range,
        this.#weights.config.vocabulary,
        logits,
      );
      return (await this.#likelihoods(tokens)).logLikelihoods;
    });
  }

  /**
   * Takes tokens into the first sequence and scores what each of them predicts.
   *
   * @param targets the token that follows each of `tokens`
   * @param onLogits called with logits f32 [rows, vocabulary] and the index of the first row, part by part
   * @throws {RangeError} when there is no room for them, or a token is outside the vocabulary
   * @throws {Error} when logits are not numbers
   */
  score(
    tokens: Uint32Array<ArrayBuffer>,
    targets: Uint32Array<ArrayBuffer>,
    onLogits?: OnLogits,
  ): Promise<TokenScores> {
    return this.#run(async () => {
      this.#known.checkText(0, tokens);
      if (targets.length !== tokens.length) {
        throw new TypeError(`${targets.length} targets, must be one for each of ${tokens.length} tokens`);
      }
      this.#known.checkTokens(0, targets);
      const scorer = this.#scorer ??= await createTokenScorer(this.#gpu, this.#weights);
      const scores = await scorer.score((onPass) => this.#takeIn(0, tokens, undefined, onPass), targets, onLogits);
      const failed = scores.logLikelihoods.findIndex(Number.isNaN);
      if (failed >= 0) throw this.#known.notNumbers(0, this.lengths[0] - tokens.length + failed);
      return scores;
    });
  }

  /**
   * Takes tokens into the first sequence and gives the logits after some of them.
   *
   * @param positions indices into `tokens`
   * @returns f32 [vocabulary] for each of `positions`
   * @throws {RangeError} when there is no room for the tokens, one is outside the vocabulary, or a position outside the
   * tokens
   * @throws {Error} when logits are not numbers
   */
  logitsAfter(
    tokens: Uint32Array<ArrayBuffer>,
    positions: readonly number[],
  ): Promise<Float32Array<ArrayBuffer>[]> {
    return this.#run(async () => {
      this.#known.checkText(0, tokens);
      const outside = positions.find((position) => !(position in tokens));
      if (outside !== undefined) throw new RangeError(`position is ${outside}, must be 0 to ${tokens.length - 1}`);
      const scorer = this.#scorer ??= await createTokenScorer(this.#gpu, this.#weights);
      const logits = await scorer.logits((onPass) => this.#takeIn(0, tokens, undefined, onPass), positions);
      const failed = logits.findIndex((row) => row.some(Number.isNaN));
      if (failed >= 0) throw this.#known.notNumbers(0, this.lengths[0] - tokens.length + positions[failed]);
      return logits;
    });
  }

  /** Takes tokens out of a sequence from `length` on; the one at `length` stays known, and {@linkcode decode} goes on from it. */
  truncate(sequence: number, length: number): void {
    this.#known.truncate(sequence, length);
  }

  /** Frees the cache. */
  [Symbol.dispose](): void {
    if (this.#exclusive.isClosed) return;
    this.#exclusive.close();
    for (const part of [this.#prefill, this.#scorer, this.#steps, this.#scope]) part?.[Symbol.dispose]();
  }

  /** Runs a call that nothing else meets. @throws {Error} where there is nothing left to compute with */
  #run<T>(work: () => Promise<T>): Promise<T> {
    return this.#exclusive.run(async () => {
      checkNotDisposed(this.#weights);
      return await work();
    });
  }

  /** Takes tokens into a sequence, pass by pass; the residual stream of a pass is there until the next. */
  async #takeIn(
    sequence: number,
    tokens: Uint32Array<ArrayBuffer>,
    signal: AbortSignal | undefined,
    onPass: (hidden: GPUBuffer, length: number, first: number) => Promise<void> | void,
  ): Promise<void> {
    const prefill = this.#prefill ??= await createPrefill(this.#gpu, this.#weights, this.#buffers);
    const start = this.lengths[sequence];
    this.#steps.forgetEmbedded();
    for await (const part of prefill.takeIn(tokens, start, sequence, signal)) {
      await onPass(prefill.hidden, part.length, this.lengths[sequence] - start);
      this.#known.append(sequence, part);
    }
  }
}

/**
 * Makes empty sequences.
 *
 * @param capacity tokens that each has room for
 * @param sequences 1 to {@linkcode MAX_SEQUENCES}
 * @throws {RangeError} for another number of them, when the model's context is shorter, the device can't bind so large a
 * cache, or the precision is for other weights
 * @throws {OutOfMemoryError} with what the caches need, when the device has no room
 */
export async function createSession(
  gpu: Gpu,
  weights: EngineWeights,
  capacity: number,
  sequences = 1,
  precision: DecodePrecision = {},
): Promise<Session> {
  checkNotDisposed(weights);
  checkPrecision(weights, precision);
  checkSequences(sequences);
  const { config } = weights;
  checkCapacity(gpu, config, capacity, sequences, precision.cacheBits);
  try {
    return await allOrNone(gpu, async (scope) => {
      const buffers = await createStepBuffers(gpu, config, sequences, capacity, scope, precision);
      const step = await createDecodeStep(gpu, weights, stepSize(sequences), buffers);
      return new Session(gpu, weights, buffers, step, capacity, scope);
    });
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    const needed = sequences * cacheBytes(config, capacity, precision.cacheBits);
    const needing = sequences === 1
      ? `a sequence of ${capacity} tokens needs`
      : `${sequences} sequences of ${capacity} tokens need`;
    const message = `${needing} ${needed} bytes of device memory for keys and values: ${error.message}`;
    throw new OutOfMemoryError(message, needed, error.heldBytes);
  }
}
