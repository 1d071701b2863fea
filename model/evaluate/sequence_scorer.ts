// Scoring predictions of many sequences on the device: only 12 bytes a row of the head are read back.
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { EngineWeights } from "../engine/engine_weights.ts";
import type { ModelConfig } from "../llama/config.ts";
import { createJoinedPass, type JoinedPass, joinedShape } from "./joined_pass.ts";
import {
  createScoringHead,
  type KeptLogits,
  runOf,
  type ScoredSequence,
  scoreRuns,
  type ScoringHead,
  type SequenceScores,
} from "./scored_runs.ts";

/** Parts that a pass is taken in where the device has no room for it, at most. */
const MOST_PARTS = 8;

/** Scores sequences with one model. Dispose it to free its buffers. */
export interface SequenceScorer extends Disposable {
  /**
   * Scores sequences, `onDone` is told how many are done.
   *
   * @throws {TypeError} when nothing was kept for a sequence that is to be compared
   * @throws {RangeError} when a token is outside the vocabulary, a sequence longer than the context, or a prediction is no
   * number
   */
  score(sequences: readonly ScoredSequence[], onDone?: (done: number) => void): Promise<SequenceScores[]>;
}

/**
 * Makes a scorer; its buffers come with what is scored first.
 *
 * @param kept takes logits in buffers of the device, which stay when the scorer is disposed
 */
export function createSequenceScorer(gpu: Gpu, weights: EngineWeights, kept: KeptLogits): SequenceScorer {
  const { config, config: { vocabulary } } = weights;
  let pass: JoinedPass | undefined;
  let head: ScoringHead | undefined;
  let parts = 1;
  const passFor = async (count: number, longest: number): Promise<JoinedPass> => {
    const shape = joinedShape(config, count, longest, gpu.device.limits.maxStorageBufferBindingSize, parts);
    if (JSON.stringify(pass?.shape) === JSON.stringify(shape)) return pass!;
    pass?.[Symbol.dispose]();
    pass = undefined;
    try {
      return pass = await createJoinedPass(gpu, weights, shape);
    } catch (error) {
      if (!(error instanceof OutOfMemoryError) || parts === MOST_PARTS) throw error;
      parts *= 2;
      return await passFor(count, longest);
    }
  };
  return {
    async score(sequences, onDone) {
      for (const { tokens } of sequences) checkTokens(tokens, vocabulary);
      const scores = sequences.map(({ targets: { length } }) => ({
        logLikelihoods: new Float32Array(length),
        best: new Uint32Array(length),
        divergences: new Float32Array(length),
      }));
      const made = head ??= await createScoringHead(gpu, weights);
      let done = 0;
      // The device has the next pass when the host waits for what was found after the one before, but where maps block.
      let found = () => Promise.resolve();
      for (const [longest, all] of byLength(sequences, config)) {
        const { shape, takeIn } = await passFor(all.length, longest);
        for (let i = 0; i < all.length; i += shape.sequences) {
          const batch = all.slice(i, i + shape.sequences);
          await takeIn(batch.map((index) => sequences[index].tokens), async (hidden, first) => {
            const runs = batch.flatMap((index, place) => runOf(sequences[index], index, place, first, shape.tokens));
            const foundNext = await scoreRuns({ gpu, vocabulary, head: made, kept, sequences }, hidden, runs, scores);
            await found();
            found = foundNext;
          });
          onDone?.(done += batch.length);
        }
      }
      await found();
      return scores;
    },
    [Symbol.dispose]() {
      pass?.[Symbol.dispose]();
      head?.[Symbol.dispose]();
    },
  };
}

function checkTokens(tokens: Uint32Array, vocabulary: number): void {
  const bad = tokens.find((token) => token >= vocabulary);
  if (bad !== undefined) throw new RangeError(`token is ${bad}, must be below ${vocabulary}`);
}

/**
 * Indices of sequences by the length that they are padded to: at most a quarter more than their own, or 8. With longrope the
 * length decides the rotation, and nothing is padded.
 */
function byLength(sequences: readonly ScoredSequence[], { context, rope }: ModelConfig): Map<number, number[]> {
  const lengths = sequences.map(({ tokens: { length } }) => {
    if (rope.scaling?.type === "longrope") return length;
    const step = Math.max(8, 2 ** (Math.floor(Math.log2(length)) - 2));
    return Math.max(length, Math.min(context, step * Math.ceil(length / step)));
  });
  return Map.groupBy(lengths.keys(), (index) => lengths[index]);
}
