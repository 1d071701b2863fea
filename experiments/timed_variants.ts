// Times of several kernels that are compared: measured in turn, so that what slows the device hits all of them alike,
// and until their errors are small.
import type { Dispatch, Gpu } from "../kernels/gpu/gpu.ts";
import { timeRounds } from "../kernels/gpu/timer.ts";
import { type Estimate, median, medianEstimate } from "../model/host/statistics.ts";

/** Sequences that a sample is at least of, where the device is a GPU. */
const SAMPLE_SEQUENCES = 64;
/** Rounds of one submit; between submits seconds may pass, so a slow spell takes one of them at most. */
const SUBMIT_ROUNDS = 6;
const LEAST_SUBMITS = 3;
const MOST_SUBMITS = 10;
/** Standard error of a median, relative to it, that is small enough. */
const WANTED_ERROR = 0.002;
/** Of the median: a sample beyond it was taken in a slow spell. */
const SLOW = 1.1;

/** How {@linkcode timeVariants} samples, for the settings of a result. */
export const SAMPLING =
  `kernels in turn, a sample of at least ${SAMPLE_SEQUENCES} products of each in a round, ${SUBMIT_ROUNDS} rounds a ` +
  `submit behind a warm-up; ${LEAST_SUBMITS} submits, and more up to ${MOST_SUBMITS} until the standard error of every ` +
  `median is below ${100 * WANTED_ERROR} %; nothing is left out: slow samples are those above ${SLOW} x the median`;

/** How errors follow from the samples, for the settings of a result. */
export const ERRORS =
  "ratios, differences and shares are medians over rounds, with distribution-free standard errors from their order";

/** Microseconds of each variant; sample i of all of them belongs to the same round. */
export type Samples<Variant extends string> = Readonly<Record<Variant, readonly number[]>>;

/** Times variants, each a list of sequences in rotation over copies of its matrices. */
export async function timeVariants<Variant extends string>(
  gpu: Gpu,
  variants: Readonly<Record<Variant, readonly (readonly Dispatch[])[]>>,
  tickNs: number,
): Promise<Samples<Variant>> {
  const names = Object.keys(variants) as Variant[];
  const works = names.map((name) => {
    const { length } = variants[name];
    const repeats = gpu.isSoftware ? length : Math.ceil(SAMPLE_SEQUENCES / length) * length;
    return { sequences: variants[name], repeats };
  });
  const options = gpu.isSoftware
    ? { rounds: 3, warmUpMs: 1, tickNs }
    : { rounds: SUBMIT_ROUNDS, warmUpMs: 20 * works.length, tickNs };
  const samples = names.map((): number[] => []);
  const [least, most] = gpu.isSoftware ? [1, 1] : [LEAST_SUBMITS, MOST_SUBMITS];
  for (let submits = 0; submits < least || submits < most && !samples.every(isPrecise); submits++) {
    const { samplesUs } = await timeRounds(gpu, works, options);
    for (const [i, more] of samplesUs.entries()) samples[i].push(...more);
  }
  return Object.fromEntries(names.map((name, i) => [name, samples[i]])) as unknown as Samples<Variant>;
}

function isPrecise(samples: readonly number[]): boolean {
  const { value, standardError } = medianEstimate(samples);
  return standardError <= WANTED_ERROR * value;
}

/** What follows from the samples of each round, as a median over the rounds. */
export function estimate<Variant extends string>(
  samples: Samples<Variant>,
  ofRound: (timeUs: Readonly<Record<Variant, number>>) => number,
): Estimate {
  const names = Object.keys(samples) as Variant[];
  const rounds = samples[names[0]].map((_, i) => {
    return Object.fromEntries(names.map((name) => [name, samples[name][i]])) as Record<Variant, number>;
  });
  return medianEstimate(rounds.map(ofRound));
}

/** Samples that were taken in a slow spell. */
export function countSlow(samples: readonly number[]): number {
  const limit = SLOW * median(samples);
  return samples.filter((timeUs) => timeUs > limit).length;
}
