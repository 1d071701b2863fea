// The steps of sequences on the device: which of them take part, where their tokens come from and where the chosen ones
// are read.
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { packSampling, type Sampling, SAMPLING_BYTES } from "../../kernels/tokens/sampler.ts";
import { setTokenRange } from "../../kernels/tokens/token_range.ts";
import { createDecodeStep, type DecodeStep, forTokens, type StepBuffers, stepSize } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import type { Operation } from "./layer_operations.ts";
import type { Sequences } from "./sequences.ts";

/** Steps of one token in a submit: between two submits the device does nothing for some microseconds. */
const SUBMIT_STEPS = 4;

/** Takes steps of some sequences, of which the host knows what {@linkcode Sequences} says. Dispose it to free them. */
export class SequenceSteps implements Disposable {
  readonly #gpu: Gpu;
  readonly #weights: EngineWeights;
  readonly #buffers: StepBuffers;
  readonly #scope: BufferScope;
  readonly #known: Sequences;
  /** Steps by the most tokens that they take. */
  readonly #steps = new Map<number, DecodeStep>();
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
    let step = this.#steps.get(size);
    if (!step) this.#steps.set(size, step = await createDecodeStep(this.#gpu, this.#weights, size, this.#buffers));
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

  /** Submits steps that follow each other; those of one token by fours. */
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

  /** Reads the last `count` tokens chosen for each of some sequences, of which the last follows the cache. */
  async readChosen(sequences: readonly number[], count: number): Promise<Uint32Array<ArrayBuffer>[]> {
    const places = sequences.map((sequence) => this.#placeOf(sequence, this.#known.lengths[sequence] - count + 1));
    const bytes = await this.#readTokens(places, count);
    const tokens = sequences.map((_, i) => new Uint32Array(bytes, 4 * i * count, count));
    const errors = sequences.flatMap((sequence, i) => this.#known.learn(sequence, tokens[i]) ?? []);
    if (errors.length > 0) {
      await this.#checkRelay();
      throw errors[0];
    }
    if (sequences.length === 1) this.#embedded = places[0] + count - 1;
    return tokens;
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

  /** @throws {Error} when workgroups of a layer waited for one that didn't run; later steps then start afresh */
  async #checkRelay(): Promise<void> {
    const relay = this.#steps.get(1)?.relay;
    if (!relay || new Uint32Array(await this.#gpu.read(relay, 4))[0] === 0) return;
    this.#gpu.write(relay, new Uint32Array(1));
    throw new Error("workgroups of a layer waited in vain for others, want all of them to run side by side");
  }

  /** Where the token of a position is among those of all sequences. */
  #placeOf(sequence: number, position: number): number {
    return sequence * (this.#buffers.caches[0].capacity + 1) + position;
  }

  [Symbol.dispose](): void {
    for (const step of this.#steps.values()) step[Symbol.dispose]();
  }
}

function pickOf({ pickBest, pickSampled }: DecodeStep, sampling: readonly Sampling[] | undefined): Operation {
  return sampling ? pickSampled : pickBest;
}
