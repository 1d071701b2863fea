// What the host knows of sequences on the device: which tokens, and how many of them are in the cache.
import { NOT_A_NUMBER_TOKEN } from "../../kernels/tokens/sampler.ts";

/** Sequences 0, 1, ... of the same capacity, at first empty. Errors name the sequence where there are several. */
export class Sequences {
  /** Tokens that the cache has room for, in each sequence. */
  readonly capacity: number;
  readonly #vocabulary: number;
  readonly #lengths: number[];
  /** Tokens of each by position: those in the cache, and the next where it is chosen. What was never read is missing. */
  readonly #tokens: number[][];

  /** Makes `count` of them. */
  constructor(count: number, capacity: number, vocabulary: number) {
    this.capacity = capacity;
    this.#vocabulary = vocabulary;
    this.#lengths = new Array(count).fill(0);
    this.#tokens = Array.from({ length: count }, () => []);
  }

  /** Tokens of each that are in the cache. */
  get lengths(): readonly number[] {
    return this.#lengths;
  }

  /** The token that follows a sequence's cache. @throws {RangeError} where none is known */
  next(sequence: number): number {
    const length = this.#lengths[sequence];
    const token = this.#tokens[sequence].at(length);
    if (token !== undefined) return token;
    const place = `position ${length}${this.#named("of", sequence)}`;
    throw new RangeError(`no token is known at ${place}, must have a prompt before`);
  }

  /** Has a token follow a sequence's cache. @throws {RangeError} for one outside the vocabulary */
  setNext(sequence: number, token: number): void {
    this.check([sequence]);
    this.checkTokens(sequence, Uint32Array.of(token));
    this.#put(sequence, this.#lengths[sequence], Uint32Array.of(token));
  }

  /** Takes note of tokens that went into the cache. */
  append(sequence: number, tokens: Uint32Array): void {
    this.#put(sequence, this.#lengths[sequence], tokens);
    this.#lengths[sequence] += tokens.length;
  }

  /** Takes note of a number of tokens that went into the cache but are not known yet. */
  advance(sequence: number, count: number): void {
    this.#lengths[sequence] += count;
  }

  /** Takes note of tokens chosen; before the first that is none the sequence ends, and that is the error returned. */
  learn(sequence: number, chosen: Uint32Array): Error | undefined {
    const failed = chosen.indexOf(NOT_A_NUMBER_TOKEN);
    const first = this.#lengths[sequence] - chosen.length + 1;
    this.#put(sequence, first, failed < 0 ? chosen : chosen.subarray(0, failed));
    if (failed < 0) return undefined;
    this.#lengths[sequence] = first + failed;
    return this.notNumbers(sequence, first + failed - 1);
  }

  #put(sequence: number, first: number, tokens: Uint32Array): void {
    const known = this.#tokens[sequence];
    known.length = first;
    known.push(...tokens);
  }

  /** Takes tokens out of the cache from `length` on; the one there stays known. */
  truncate(sequence: number, length: number): void {
    this.check([sequence]);
    if (!(Number.isInteger(length) && length >= 0 && length <= this.#lengths[sequence])) {
      throw new RangeError(`length is ${length}, must be 0 to ${this.#lengths[sequence]}`);
    }
    this.#lengths[sequence] = length;
    this.#tokens[sequence].splice(length + 1);
  }

  /** @throws {RangeError} when there are none, the same twice or others than there are */
  check(sequences: readonly number[]): void {
    const count = this.#lengths.length;
    const isOne = (i: number) => Number.isInteger(i) && i >= 0 && i < count;
    if (sequences.length > 0 && sequences.every(isOne) && new Set(sequences).size === sequences.length) return;
    throw new RangeError(`sequences are ${sequences.join(", ") || "none"}, must be some of 0 to ${count - 1}`);
  }

  /** @throws {RangeError} when tokens are none, have no room or are outside the vocabulary */
  checkText(sequence: number, tokens: Uint32Array): void {
    this.#checkRoom(sequence, tokens.length);
    this.checkTokens(sequence, tokens);
  }

  /** @throws {RangeError} for one outside the vocabulary */
  checkTokens(sequence: number, tokens: Uint32Array): void {
    const outside = tokens.findIndex((token) => token >= this.#vocabulary);
    if (outside < 0) return;
    const token = `token ${outside}${this.#named("of", sequence)} is ${tokens[outside]}`;
    throw new RangeError(`${token}, must be below ${this.#vocabulary}`);
  }

  /** @throws {RangeError} when there is no room for `count` tokens, or none to go on from */
  checkNext(sequence: number, count: number): void {
    this.#checkRoom(sequence, count);
    this.next(sequence);
  }

  /** The error of logits from which nothing can be chosen. */
  notNumbers(sequence: number, position: number): Error {
    const what = `logits at position ${position}${this.#named("of", sequence)} are not numbers`;
    return new Error(`${what}, keys, values and weights must lie within f16`);
  }

  #checkRoom(sequence: number, tokens: number): void {
    if (!(Number.isInteger(tokens) && tokens >= 1)) {
      throw new RangeError(`${tokens} tokens${this.#named("for", sequence)}, must be 1 or more`);
    }
    const length = this.#lengths[sequence] + tokens;
    if (length <= this.capacity) return;
    const name = this.#lengths.length === 1 ? "the sequence" : `sequence ${sequence}`;
    throw new RangeError(`${name} would have ${length} tokens, must have at most its capacity of ${this.capacity}`);
  }

  #named(before: string, sequence: number): string {
    return this.#lengths.length === 1 ? "" : ` ${before} sequence ${sequence}`;
  }
}
