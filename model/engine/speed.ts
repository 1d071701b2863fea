// How fast a model runs: prompts and generation by the host's clock, operations by the device's.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { timeDispatches } from "../../kernels/gpu/timer.ts";
import type { Sampling } from "../../kernels/tokens/sampler.ts";
import type { EngineWeights } from "./engine_weights.ts";
import type { OperationKind } from "./layer_operations.ts";
import type { DecodePrecision } from "./precision.ts";
import { createSession, type Session } from "./session.ts";
import { type Estimate, median, medianEstimate } from "../host/statistics.ts";

export interface SpeedPlan extends DecodePrecision {
  /** Tokens of a prompt; 0 leaves prompts out. */
  readonly promptTokens: number;
  /** Tokens generated; 0 leaves generation out. */
  readonly generateTokens: number;
  readonly depth: number;
  readonly repetitions: number;
  /** How generated tokens are drawn. Default: the most likely ones. */
  readonly sampling?: Sampling;
}

/** Speeds in tokens a second, one of each repetition, by the host's clock: encoding and reading back included. */
export interface Speed {
  readonly prompt: readonly number[];
  readonly generation: readonly number[];
  /** Why a step's layers don't run whole, where they don't. */
  readonly whyNotWhole?: string;
}

/** Clocks of an idle GPU are low; so long it works before anything is measured. */
const WARM_UP_MS = 300;

/** Samples where nobody says how many: of runs that take less than a second, and of others. */
export const REPETITIONS = { short: 9, long: 5 };

export async function measureSpeed(gpu: Gpu, weights: EngineWeights, plan: SpeedPlan): Promise<Speed> {
  const { promptTokens, generateTokens, depth, repetitions, sampling, ...precision } = plan;
  const capacity = Math.max(1, depth) + Math.max(promptTokens, generateTokens);
  using session = await createSession(gpu, weights, capacity, 1, precision);
  if (depth > 0) await session.prefill([sampleText(weights, depth)]);
  const prompt = promptTokens === 0 ? [] : await measurePrompt(session, weights, promptTokens, repetitions);
  if (depth === 0) await session.prefill([sampleText(weights, 1)]);
  const generation = generateTokens === 0
    ? []
    : await measureGeneration(session, generateTokens, repetitions, sampling);
  const { whyNotWhole } = session.step;
  return { prompt, generation, ...(whyNotWhole !== undefined && { whyNotWhole }) };
}

/**
 * Measures the speed of a model with several sequences that go on together.
 *
 * @param sequences 1 to 128
 * @param plan of each sequence; its prompt's speed is left out, as prompts are taken in one after the other
 * @returns tokens a second of all sequences together, one of each repetition
 * @throws {RangeError} for another number of sequences, or when the device can't bind so large a cache
 * @throws {OutOfMemoryError} with what the caches need, when the device has no room
 */
export async function measureBatchSpeed(
  gpu: Gpu,
  weights: EngineWeights,
  sequences: number,
  { generateTokens, depth, repetitions, sampling, ...precision }: SpeedPlan,
): Promise<number[]> {
  const length = Math.max(1, depth);
  using session = await createSession(gpu, weights, length + generateTokens, sequences, precision);
  await session.prefill(Array.from({ length: sequences }, () => sampleText(weights, length)));
  return await measureGeneration(session, generateTokens, repetitions, sampling);
}

/** Any tokens: speed doesn't depend on them. */
export function sampleText({ config }: EngineWeights, length: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, (_, i) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) % config.vocabulary);
}

/** Speeds of taking in a prompt after what the session holds, which it holds again in the end. */
export async function measurePrompt(
  session: Session,
  weights: EngineWeights,
  tokens: number,
  repetitions?: number,
): Promise<number[]> {
  const [length] = session.lengths;
  const prompt = sampleText(weights, tokens);
  const run = async () => {
    await session.prefill([prompt]);
    session.truncate(0, length);
  };
  return await measureRates(tokens, run, repetitions);
}

/** Speeds of all sequences together, generating tokens after what the session holds, which it holds again in the end. */
export async function measureGeneration(
  session: Session,
  tokens: number,
  repetitions?: number,
  sampling?: Sampling,
): Promise<number[]> {
  const lengths = [...session.lengths];
  const all = [...lengths.keys()];
  const run = async () => {
    await session.decode(all, tokens, sampling && all.map(() => sampling));
    for (const [sequence, length] of lengths.entries()) session.truncate(sequence, length);
  };
  return await measureRates(lengths.length * tokens, run, repetitions);
}

/**
 * Tokens a second of each repetition of something that takes so many, by the host's clock, after warming up.
 *
 * @param repetitions by default more of what takes less than a second
 */
export async function measureRates(tokens: number, run: () => Promise<void>, repetitions?: number): Promise<number[]> {
  // The first run waits for its pipelines, while the GPU idles.
  await run();
  const runMs = await warmUp(run);
  const wanted = repetitions ?? REPETITIONS[runMs < 1000 ? "short" : "long"];
  const rates: number[] = [];
  for (let i = 0; i < wanted; i++) rates.push((1000 * tokens) / await timeRun(run));
  return rates;
}

/** Runs something until clocks have risen. Returns the last run's milliseconds. */
async function warmUp(run: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  let lastMs: number;
  do lastMs = await timeRun(run); while (performance.now() - startMs < WARM_UP_MS);
  return lastMs;
}

/** Milliseconds of a run, by the host's clock. */
async function timeRun(run: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await run();
  return performance.now() - startMs;
}

/** Microseconds of a decode step by purpose, by the device's clock; medians. */
export type OperationTimes = ReadonlyMap<OperationKind, Estimate>;

/**
 * Times the operations of a decode step at the position that the session's last step had: those of each purpose in all
 * layers one after the other, and whole layers where they run so. Moving on to the next token is left out.
 */
export async function timeOperations(gpu: Gpu, session: Session, tickNs: number): Promise<OperationTimes> {
  const { step, lengths: [length] } = session;
  const choose = { ...step.pickBest, dispatches: step.pickBest.dispatches.slice(0, 1) };
  const whole = step.layers(length - 1).filter(({ kind }) => kind === "layers");
  const operations = [...whole, ...await step.operations(length - 1), step.head, choose];
  const options = { samples: 10, repeats: 4, tickNs, warmUpMs: gpu.isSoftware ? 1 : 40 };
  // While the operations' pipelines were made the GPU did nothing.
  if (!gpu.isSoftware) {
    await warmUp(() => {
      gpu.submit(operations.flatMap(({ dispatches }) => dispatches));
      return gpu.wait();
    });
  }
  const times = new Map<OperationKind, Estimate>();
  for (const kind of new Set(operations.map((operation) => operation.kind))) {
    const dispatches = operations.filter((operation) => operation.kind === kind).flatMap((each) => each.dispatches);
    times.set(kind, medianEstimate((await timeDispatches(gpu, [dispatches], options)).samplesUs));
  }
  return times;
}

/** Microseconds that the host takes to encode and submit a decode step, by its clock; the median of some steps. */
export async function timeEncoding(gpu: Gpu, session: Session): Promise<number> {
  const { layers, head } = session.step;
  const dispatches = [...layers(session.lengths[0] - 1), head].flatMap((operation) => operation.dispatches);
  const samplesUs: number[] = [];
  for (let i = 0; i < 9; i++) {
    const startMs = performance.now();
    gpu.submit(dispatches);
    samplesUs.push((performance.now() - startMs) * 1000);
    await gpu.wait();
  }
  return median(samplesUs);
}
