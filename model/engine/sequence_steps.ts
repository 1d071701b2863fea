// The steps of sequences on the device: which of them take part, where their tokens come from and where the chosen ones
// are read.
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { hasGivenUp } from "../../kernels/layer/co_resident.ts";
import { NOT_A_NUMBER_TOKEN, packSampling, type Sampling, SAMPLING_BYTES } from "../../kernels/tokens/sampler.ts";
import { setTokenRange } from "../../kernels/tokens/token_range.ts";
import { createDecodeStep, type DecodeStep, forTokens, type StepBuffers, stepSize } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import type { Operation } from "./layer_operations.ts";
import type { Sequences } from "./sequences.ts";

/** Steps of one token in a submit: between two submits the device does nothing for about 45 us. */
const SUBMIT_STEPS = 16;

/** Takes steps of some sequences, of which the host knows what {@linkcode Sequences} says. Dispose it to free them. */
export class SequenceSteps implements Disposable {
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: StepBuffers;
  readonly #scope: BufferScope;
  readonly #known: Sequences;
  /** Steps by the most tokens that they take. */
  readonly #steps = new Map<number, DecodeStep>();
  /** Those that others have replaced, whose buffers may be in use. */
  readonly #replaced: DecodeStep[] = [];
  /** u32: tokens of several sequences, gathered to be read. */
  #gathered: GPUBuffer | undefined;
  /** Place among all tokens of the one whose embedding is in the buffer that a step of one token starts from. */
  #embedded = -1;

  /** Begins with the step of all sequences. */
  constructor(
    gpu: Gpu,
    weights: EngineWeights,
    buffers: StepBuffers,
    scope: BufferScope,
    known: Sequences,
    step: DecodeStep,
  ) {
    this.#gpu = gpu;
    this.#weights = weights;
    this.#buffers = buffers;
    this.#scope = scope;
    this.#known = known;
    this.#steps.set(step.range.maxTokens, step);
  }

  /** The step of all sequences. */
  get ofAll(): DecodeStep {
    return this.#steps.get(stepSize(this.#buffers.sequences))!;
  }

  /** Says which sequences the next steps take, from which positions on, and how their tokens are drawn. */
  async start(
    sequences: readonly number[],
    positions: readonly number[],
    sampling: readonly Sampling[] | undefined,
  ): Promise<DecodeStep> {
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
    const step = this.#steps.get(size) ?? await this.#make(size);
    if (size > 1) setTokenRange(this.#gpu, step.range, sequences.length, 0);
    this.#gpu.write(sequence, Uint32Array.from(sequences.flatMap((index, i) => [positions[i], index])));
    return step;
  }

  /** Makes the embeddings of the tokens that follow the input of a step, where that isn't so already. */
  embedNext({ embed }: DecodeStep, sequences: readonly number[]): void {
    const next = this.#placeOf(sequences[0], this.#known.lengths[sequences[0]]);
    if (sequences.length > 1 || this.#embedded !== next) {
      this.#gpu.write(this.#buffers.tokens, Uint32Array.from(sequences, (i) => this.#known.next(i)));
      this.#gpu.submit(embed);
    }
    // Layers in place leave their result there, and steps the next token: only known once the chosen tokens are read.
    this.#embedded = -1;
  }

  /** Takes note that what steps of one token start from was overwritten. */
  forgetEmbedded(): void {
    this.#embedded = -1;
  }

  /** Submits steps that follow each other; those of one token many at once. */
  submit(
    step: DecodeStep,
    sequences: readonly number[],
    count: number,
    sampling: readonly Sampling[] | undefined,
  ): void {
    const together = step.range.maxTokens === 1 ? SUBMIT_STEPS : 1;
    const last = [step.head, pickOf(step, sampling)];
    let layers: readonly Operation[] | undefined;
    let dispatches: Dispatch[] = [];
    let steps: Dispatch[] = [];
    for (let i = 0; i < count; i++) {
      const next = step.layers(this.#known.lengths[sequences[0]] + i);
      if (next !== layers) {
        layers = next;
        dispatches = forTokens([...layers, ...last].flatMap((operation) => operation.dispatches), sequences.length);
      }
      steps.push(...dispatches);
      // The first step goes by itself, so that the device has work while the others are encoded.
      if (i % together === 0 || i === count - 1) {
        this.#gpu.submit(steps);
        steps = [];
      }
    }
  }

  /** Chooses the tokens that follow the residual streams which a step has of so many sequences. */
  choose(step: DecodeStep, count: number, sampling: readonly Sampling[] | undefined): void {
    const last = [step.head, pickOf(step, sampling)].flatMap(({ dispatches }) => dispatches);
    this.#gpu.submit(forTokens(last, count));
  }

  /**
   * Takes the token in that is known to follow in some sequences, chooses the next, and so on. Where workgroups of
   * whole layers waited for each other in vain, tokens from there on are computed again, operation by operation, as are
   * those of later calls; the step then says why.
   *
   * @returns the `count` tokens chosen for each of `sequences`
   * @throws {Error} when logits are not numbers
   */
  async take(
    sequences: readonly number[],
    count: number,
    sampling: readonly Sampling[] | undefined,
  ): Promise<Uint32Array<ArrayBuffer>[]> {
    const starts = sequences.map((i) => this.#known.lengths[i]);
    const step = await this.start(sequences, starts, sampling);
    this.embedNext(step, sequences);
    this.submit(step, sequences, count, sampling);
    for (const sequence of sequences) this.#known.advance(sequence, count);
    const { tokens, error } = await this.#learnChosen(sequences, count);
    if (!error) return tokens;
    if (!step.relay || !await hasGivenUp(this.#gpu, step.relay)) throw error;
    // Whoever keeps workgroups away may do so at any time, and each wait costs as much as hundreds of tokens.
    this.#gpu.hasWaitedInVain = true;
    // Whole layers are of one sequence. Its last good token is the one that wasn't taken in well.
    const good = tokens[0].indexOf(NOT_A_NUMBER_TOKEN);
    this.#known.truncate(sequences[0], starts[0] + good);
    await this.#make(step.range.maxTokens);
    this.#replaced.push(step);
    const [rest] = await this.take(sequences, count - good, sampling);
    return [Uint32Array.of(...tokens[0].subarray(0, good), ...rest)];
  }

  async #make(size: number): Promise<DecodeStep> {
    const step = await createDecodeStep(this.#gpu, this.#weights, size, this.#buffers);
    this.#steps.set(size, step);
    return step;
  }

  /** Reads the last `count` tokens chosen for each of some sequences. @throws {Error} when logits are not numbers */
  async readChosen(sequences: readonly number[], count: number): Promise<Uint32Array<ArrayBuffer>[]> {
    const { tokens, error } = await this.#learnChosen(sequences, count);
    if (error) throw error;
    return tokens;
  }

  /** Reads tokens of which the last follows the cache; the error is that of the first sequence which has none. */
  async #learnChosen(sequences: readonly number[], count: number) {
    const places = sequences.map((sequence) => this.#placeOf(sequence, this.#known.lengths[sequence] - count + 1));
    const bytes = await this.#readTokens(places, count);
    const tokens = sequences.map((_, i) => new Uint32Array(bytes, 4 * i * count, count));
    const [error] = sequences.flatMap((sequence, i) => this.#known.learn(sequence, tokens[i]) ?? []);
    if (!error && sequences.length === 1) this.#embedded = places[0] + count - 1;
    return { tokens, error };
  }

  /** Reads `count` tokens from each place on. */
  async #readTokens(places: readonly number[], count: number): Promise<ArrayBuffer> {
    const { chosen } = this.#buffers;
    const sizeBytes = 4 * count;
    if (places.length === 1) return await this.#gpu.read(chosen, sizeBytes, 4 * places[0]);
    const gathered = this.#gathered ??= await this.#scope.storage("gathered tokens", chosen.size);
    for (const [i, place] of places.entries()) this.#gpu.copy(chosen, 4 * place, gathered, i * sizeBytes, sizeBytes);
    return await this.#gpu.read(gathered, places.length * sizeBytes);
  }

  /** Where the token of a position is among those of all sequences. */
  #placeOf(sequence: number, position: number): number {
    return sequence * (this.#buffers.caches[0].capacity + 1) + position;
  }

  [Symbol.dispose](): void {
    for (const step of [...this.#steps.values(), ...this.#replaced]) step[Symbol.dispose]();
  }
}

function pickOf({ pickBest, pickSampled }: DecodeStep, sampling: readonly Sampling[] | undefined): Operation {
  return sampling ? pickSampled : pickBest;
}
