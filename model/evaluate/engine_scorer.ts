/**
 * Scoring on the GPU engine.
 *
 * @module
 */
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { letOthersRun } from "../host/event_loop.ts";
import { type EngineWeights, uploadWeights } from "../engine/engine_weights.ts";
import { type ChoiceItem, divergenceFrom, toLogProbabilities, type WindowScore } from "./score.ts";
import type { Scorer, WindowTask } from "./scorer.ts";
import { createSession, type Session } from "../engine/session.ts";
import { modelSource } from "../engine/weight_source.ts";

/** A scorer that holds a model on the device. */
export interface EngineScorer extends Scorer, Disposable {
  /** Takes over the weights to score next, or none; those before are freed. */
  setWeights(weights: EngineWeights | undefined): void;
}

/**
 * Makes a scorer.
 *
 * @param weights the model to score, which stays the caller's; by default the one of {@linkcode Scorer.setModel}, whose
 * weights are rounded to f16
 */
export function createEngineScorer(gpu: Gpu, weights?: EngineWeights): EngineScorer {
  const references = new Map<number, Float32Array>();
  let current = weights;
  let session: Session | undefined;
  const close = () => {
    session?.[Symbol.dispose]();
    session = undefined;
    if (current !== weights) current?.[Symbol.dispose]();
    current = weights;
  };
  const open = async (tokens: number): Promise<Session> => {
    if (!current) throw new TypeError("scorer has no model, must be given one first");
    if (session && session.capacity < tokens) {
      session[Symbol.dispose]();
      session = undefined;
    }
    session ??= await createSession(gpu, current, tokens);
    session.truncate(0, 0);
    return session;
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
      const scores: WindowScore[] = [];
      for (const task of tasks) {
        await letOthersRun();
        scores.push(await scoreWindow(await open(task.tokens.length), task, current!.config.vocabulary, references));
        onDone?.(scores.length);
      }
      return scores;
    },
    async scoreChoices(batches, onDone) {
      const scores: number[][][] = [];
      for (const items of batches) {
        const batch: number[][] = [];
        for (const item of items) batch.push(await scoreItem(await open(longest(item)), item));
        scores.push(batch);
        onDone?.(scores.length);
      }
      return scores;
    },
    [Symbol.dispose]: close,
  };
}

async function scoreWindow(
  session: Session,
  { index, tokens, reference }: WindowTask,
  vocabulary: number,
  references: Map<number, Float32Array>,
): Promise<WindowScore> {
  const targets = tokens.slice(1);
  const keep = reference === "keep" ? new Float32Array(targets.length * vocabulary) : undefined;
  const known = reference === "compare" ? references.get(index) : undefined;
  if (reference === "compare" && !known) {
    throw new TypeError(`window ${index} has no reference, must be scored by the reference first`);
  }
  const divergence = known && new Float32Array(targets.length);
  const onLogits = (logits: Float32Array, first: number) => {
    for (let row = 0; row < logits.length / vocabulary; row++) {
      const probabilities = toLogProbabilities(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
      const at = (first + row) * vocabulary;
      keep?.set(probabilities, at);
      if (divergence) divergence[first + row] = divergenceFrom(known.subarray(at, at + vocabulary), probabilities);
    }
  };
  const wantsLogits = keep ?? divergence;
  const { logLikelihoods, best } = await session.score(tokens.slice(0, -1), targets, wantsLogits && onLogits);
  if (keep) references.set(index, keep);
  return {
    negativeLogLikelihood: logLikelihoods.map((value) => -value),
    top1: Uint8Array.from(best, (token, i) => token === targets[i] ? 1 : 0),
    ...(divergence && { divergence }),
  };
}

function longest({ context, continuations }: ChoiceItem): number {
  return context.length + Math.max(...continuations.map(({ length }) => length));
}

/** Log-likelihood of each continuation; the context but for its last token goes through the model once. */
async function scoreItem(session: Session, { context, continuations }: ChoiceItem): Promise<number[]> {
  const shared = context.length - 1;
  if (shared > 0) await session.prefill([Uint32Array.from(context.subarray(0, shared))]);
  const scores: number[] = [];
  for (const continuation of continuations) {
    session.truncate(0, shared);
    const tokens = Uint32Array.from([context[shared], ...continuation.subarray(0, -1)]);
    const { logLikelihoods } = await session.score(tokens, Uint32Array.from(continuation));
    scores.push(logLikelihoods.reduce((sum, value) => sum + value, 0));
  }
  return scores;
}
