// Scoring rows of the residual stream: the head for some at a time, and what their logits say of the tokens after them.
import { divergence } from "../../kernels/backward/divergence.ts";
import { allOrNone, type BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { logLikelihood } from "../../kernels/tokens/log_likelihood.ts";
import type { EngineWeights } from "../engine/engine_weights.ts";
import { createHead, type Head } from "../engine/token_scores.ts";

export interface ScoredSequence {
  /** What goes through the model. */
  readonly tokens: Uint32Array;
  /** The token that follows each of the last of these. */
  readonly targets: Uint32Array;
  /** The name under which its logits are kept for other models, or under which a model before kept those to compare with. */
  readonly reference?: { readonly name: number; readonly role: "keep" | "compare" };
}

/** Predictions of a sequence, one element for each target. */
export interface SequenceScores {
  /** f32: natural logarithm of the target's probability. */
  readonly logLikelihoods: Float32Array;
  /** u32: the most likely token. */
  readonly best: Uint32Array;
  /** f32: KL(reference || model) in nats; zeros where nothing is compared. */
  readonly divergences: Float32Array;
}

/** Logits that are kept, f32 [rows, vocabulary], by the sequence's name and the first of its targets. */
export type KeptLogits = Map<string, GPUBuffer>;

/** Neighbouring rows of the residual stream whose predictions are scored. */
export interface Run {
  readonly index: number;
  /** Row of the residual stream. */
  readonly row: number;
  readonly target: number;
  readonly count: number;
}

/** The scored rows of a sequence among the `tokens` from `first` on, where `place` sequences lie before it. */
export function runOf(
  { tokens: { length }, targets }: ScoredSequence,
  index: number,
  place: number,
  first: number,
  tokens: number,
): Run[] {
  const begin = Math.max(first, length - targets.length);
  const count = Math.min(first + tokens, length) - begin;
  if (count <= 0) return [];
  return [{ index, row: place * tokens + begin - first, target: begin - (length - targets.length), count }];
}

/** Tokens whose logits are in memory at once: a multiple of 64, so that bindings may begin with each part. */
const LOGIT_TOKENS = 512;
const LOGIT_BYTES = 2 ** 27;

/** Shares runs out in order: parts of at most so many rows; those of a sequence with a reference stay by themselves. */
function partsOf(runs: readonly Run[], sequences: readonly ScoredSequence[], most: number): Run[][] {
  const parts: Run[][] = [];
  let room = 0;
  for (const run of runs) {
    const isAlone = sequences[run.index].reference !== undefined;
    if (isAlone) room = 0;
    for (let at = 0; at < run.count;) {
      if (room === 0) {
        parts.push([]);
        room = most;
      }
      const count = Math.min(room, run.count - at);
      parts.at(-1)!.push({ ...run, row: run.row + at, target: run.target + at, count });
      room -= count;
      at += count;
    }
    if (isAlone) room = 0;
  }
  return parts;
}

/** A head whose logits can be compared, which leaves other things there. */
export interface ScoringHead extends Head, Disposable {
  /** f32 [most]: 1 for each row. */
  readonly ones: GPUBuffer;
}

export function createScoringHead(gpu: Gpu, weights: EngineWeights): Promise<ScoringHead> {
  return allOrNone(gpu, async (scope) => {
    const rowBytes = 4 * weights.config.vocabulary;
    const most = Math.max(64, Math.min(LOGIT_TOKENS, 64 * Math.floor(LOGIT_BYTES / (64 * rowBytes))));
    return {
      ...await createHead(gpu, scope, weights, most),
      ones: await scope.upload("weights", new Float32Array(most).fill(1)),
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}

/** What scores sequences. */
export interface ScorerParts {
  readonly gpu: Gpu;
  readonly vocabulary: number;
  readonly head: ScoringHead;
  readonly kept: KeptLogits;
  readonly sequences: readonly ScoredSequence[];
}

/** Submits the scoring of runs of the residual stream and returns what waits until their scores are read. */
export function scoreRuns(
  scorer: ScorerParts,
  hidden: GPUBuffer,
  runs: readonly Run[],
  scores: readonly SequenceScores[],
): Promise<() => Promise<void>> {
  const { gpu, vocabulary, head, sequences } = scorer;
  const { most, range, logits } = head;
  const parts = partsOf(runs, sequences, most);
  const rows = parts.length * most;
  return allOrNone(gpu, async (scope) => {
    if (rows === 0) return () => Promise.resolve();
    // Log-likelihoods, best tokens and divergences: in one buffer, as reads wait for each other.
    const found = await scope.storage("scores", 3 * 4 * rows);
    const wanted = new Uint32Array(rows);
    eachRun(parts, most, ({ index, target, count }, at) => {
      wanted.set(sequences[index].targets.subarray(target, target + count), at);
    });
    const targets = await scope.upload("targets", wanted);
    for (const [i, part] of parts.entries()) {
      const own = (buffer: GPUBuffer, kind = 0) => ({ buffer, offset: 4 * (kind * rows + i * most), size: 4 * most });
      head.predict(hidden, part);
      const likelihoods = { targets: own(targets), logLikelihoods: own(found), best: own(found, 1) };
      gpu.submit([await logLikelihood(gpu, range, { vocabulary, logits, ...likelihoods })]);
      await meetReference(scorer, part[0], own(found, 2));
    }
    const reading = readScores(scope, gpu.read(found), parts, most, scores);
    // Whoever waits meets the error.
    reading.catch(() => {});
    return () => reading;
  });
}

/** Shares out what was found, f32, u32 and f32 for all rows, and frees what it is in. */
async function readScores(
  scope: BufferScope,
  found: Promise<ArrayBuffer>,
  parts: readonly (readonly Run[])[],
  most: number,
  scores: readonly SequenceScores[],
): Promise<void> {
  using _ = scope;
  const bytes = await found;
  const rows = parts.length * most;
  const logLikelihoods = new Float32Array(bytes, 0, rows);
  const best = new Uint32Array(bytes, 4 * rows, rows);
  const divergences = new Float32Array(bytes, 8 * rows, rows);
  eachRun(parts, most, ({ index, target, count }, at) => {
    const bad = logLikelihoods.subarray(at, at + count).findIndex(Number.isNaN);
    if (bad >= 0) throw new RangeError(`logits at prediction ${target + bad} of a sequence are not numbers`);
    scores[index].logLikelihoods.set(logLikelihoods.subarray(at, at + count), target);
    scores[index].best.set(best.subarray(at, at + count), target);
    scores[index].divergences.set(divergences.subarray(at, at + count), target);
  });
}

/** Keeps a run's logits, or compares them with those that were kept, where its sequence has a reference. */
async function meetReference(
  { gpu, vocabulary, head: { range, logits, ones: weights }, kept, sequences }: ScorerParts,
  { index, target, count }: Run,
  divergences: GPUBufferBinding,
): Promise<void> {
  const { reference } = sequences[index];
  if (!reference) return;
  const name = `${reference.name} ${target}`;
  const known = kept.get(name);
  if (reference.role === "keep") {
    const copy = known ?? await gpu.createStorage("reference logits", 4 * count * vocabulary);
    kept.set(name, copy);
    return gpu.copy(logits, 0, copy, 0, copy.size);
  }
  if (!known) throw new TypeError(`window ${reference.name} has no reference, must be scored by the reference first`);
  const compared = { vocabulary, stride: vocabulary, wanted: known, weights, logits, divergences };
  gpu.submit([await divergence(gpu, range, compared)]);
}

/** Calls for each run with its place among all parts, each of which has room for `most` rows. */
function eachRun(parts: readonly (readonly Run[])[], most: number, use: (run: Run, at: number) => void): void {
  for (const [i, part] of parts.entries()) {
    let at = i * most;
    for (const run of part) {
      use(run, at);
      at += run.count;
    }
  }
}
