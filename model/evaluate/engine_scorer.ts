// Scoring on the GPU engine.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../engine/engine_weights.ts";
import { modelSource } from "../engine/weight_source.ts";
import type { ChoiceItem } from "./score.ts";
import type { Scorer, WindowTask } from "./scorer.ts";
import type { KeptLogits, ScoredSequence } from "./scored_runs.ts";
import { createSequenceScorer, type SequenceScorer } from "./sequence_scorer.ts";

/** A scorer that holds a model on the device. */
export interface EngineScorer extends Scorer, Disposable {
  /** Takes over the weights to score next, or none; those before are freed. */
  setWeights(weights: EngineWeights | undefined): void;
}

/**
 * Makes a scorer. It keeps the reference's logits on the device.
 *
 * @param weights the model to score, which stays the caller's; by default the one of {@linkcode Scorer.setModel}, whose
 * weights are rounded to f16
 */
export function createEngineScorer(gpu: Gpu, weights?: EngineWeights): EngineScorer {
  const kept: KeptLogits = new Map();
  let current = weights;
  let scorer: SequenceScorer | undefined;
  const close = () => {
    scorer?.[Symbol.dispose]();
    scorer = undefined;
    if (current !== weights) current?.[Symbol.dispose]();
    current = weights;
  };
  const score: SequenceScorer["score"] = (sequences, onDone) => {
    if (!current) throw new TypeError("scorer has no model, must be given one first");
    scorer ??= createSequenceScorer(gpu, current, kept);
    return scorer.score(sequences, onDone);
  };
  return {
    device: `GPU engine (${gpu.adapterName}), f16 activations`,
    setWeights(next) {
      close();
      current = next;
    },
    async setModel(model) {
      close();
      current = await uploadWeights(gpu, modelSource(model));
    },
    async scoreWindows(tasks, onDone) {
      const found = await score(tasks.map(windowSequence), onDone);
      return found.map(({ logLikelihoods, best, divergences }, i) => ({
        negativeLogLikelihood: logLikelihoods.map((value) => -value),
        top1: Uint8Array.from(best, (token, at) => token === tasks[i].tokens[at + 1] ? 1 : 0),
        ...(tasks[i].reference === "compare" && { divergence: divergences }),
      }));
    },
    async scoreChoices(batches, onDone) {
      const sequences = batches.flat().flatMap(choiceSequences);
      const found = await score(
        sequences,
        (done) => onDone?.(Math.floor(done / sequences.length * batches.length)),
      );
      const sums = found.values().map(({ logLikelihoods }) => logLikelihoods.reduce((sum, value) => sum + value, 0));
      return batches.map((items) => items.map(({ continuations }) => continuations.map(() => sums.next().value!)));
    },
    [Symbol.dispose]() {
      close();
      for (const logits of kept.values()) gpu.destroyBuffer(logits);
      kept.clear();
    },
  };
}

function windowSequence({ index, tokens, reference }: WindowTask): ScoredSequence {
  return {
    tokens: tokens.subarray(0, -1),
    targets: tokens.subarray(1),
    ...(reference !== "none" && { reference: { name: index, role: reference } }),
  };
}

/** Each continuation after the item's context. Contexts are short beside what going through them once more would save. */
function choiceSequences({ context, continuations }: ChoiceItem): ScoredSequence[] {
  return continuations.map((targets) => ({
    tokens: Uint32Array.from([...context, ...targets.subarray(0, -1)]),
    targets,
  }));
}
