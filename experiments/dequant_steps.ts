// Rows of `dequant_share`: how the time of a pipeline or a kernel is shared out between its steps.
import type { Estimate } from "../model/host/statistics.ts";
import { describeNoise } from "./results/judge.ts";
import { estimateCells, type Row } from "./results/result.ts";
import { countSlow, estimate, type Samples } from "./timed_variants.ts";

/** The paper's split of a kernel's time, from a later version of it. */
export const PAPER_SHARES = {
  second_order: 0.191,
  first_order: 0.327,
  multiply: 0.434,
  other: 0.048,
};

/** Samples of a pipeline's kernels, each by itself, and of all in sequence. */
export type PipelineSamples = Samples<"secondOrder" | "firstOrder" | "multiply" | "sequence">;

/** Samples of a kernel with ever less in it. */
export type AblationSamples = Samples<"full" | "noSecond" | "noOrders" | "bare">;

export interface PipelineShares {
  readonly dequantization: Estimate;
  readonly secondOrder: Estimate;
}

/**
 * Rows of a pipeline. Shares are of the sequence, or of the parts' sum where the parts take longer by themselves, so
 * that they are within 0 and 1 and add up to 1 in every round.
 */
export function pipelineRows(shape: string, samples: PipelineSamples): PipelineShares & { readonly rows: Row[] } {
  type Times = Readonly<Record<keyof PipelineSamples, number>>;
  const sum = (t: Times) => t.secondOrder + t.firstOrder + t.multiply;
  const whole = (t: Times) => Math.max(t.sequence, sum(t));
  const row = (step: string, time: (t: Times) => number, slow: number): Row => {
    const share = estimate(samples, (t) => Math.max(0, time(t)) / whole(t));
    return stepRow(shape, "three_kernels", step, estimate(samples, time), share, slow);
  };
  const slow = countSlow(samples.sequence);
  return {
    rows: [
      row("second_order", (t) => t.secondOrder, countSlow(samples.secondOrder)),
      row("first_order", (t) => t.firstOrder, countSlow(samples.firstOrder)),
      row("multiply", (t) => t.multiply, countSlow(samples.multiply)),
      row("other", (t) => t.sequence - sum(t), slow),
      stepRow(shape, "three_kernels", "sequence", estimate(samples, (t) => t.sequence), undefined, slow),
    ],
    dequantization: estimate(samples, (t) => (t.secondOrder + t.firstOrder) / whole(t)),
    secondOrder: estimate(samples, (t) => t.secondOrder / whole(t)),
  };
}

/**
 * Rows of a kernel from whose time stages were taken out one after the other. Shares are of the sum of the steps that take
 * any time, which is the whole kernel's where all do, so that they add up to 1 in every round.
 */
export function ablationRows(shape: string, variant: string, samples: AblationSamples): Row[] {
  type Times = Readonly<Record<keyof AblationSamples, number>>;
  const slow = Object.values(samples).reduce((count, values) => count + countSlow(values), 0);
  const steps: Readonly<Record<string, (t: Times) => number>> = {
    load: (t) => t.bare,
    first_order: (t) => t.noSecond - t.noOrders,
    second_order: (t) => t.full - t.noSecond,
    multiply: (t) => t.noOrders - t.bare,
  };
  const whole = (t: Times) => Object.values(steps).reduce((sum, time) => sum + Math.max(0, time(t)), 0);
  return Object.entries(steps).map(([step, time]) => {
    const share = estimate(samples, (t) => Math.max(0, time(t)) / whole(t));
    return stepRow(shape, variant, step, estimate(samples, time), share, slow);
  });
}

function stepRow(
  shape: string,
  variant: string,
  step: string,
  time: Estimate,
  share: Estimate | undefined,
  slow: number,
): Row {
  return {
    shape,
    variant,
    step,
    ...estimateCells("time_us", time),
    ...estimateCells("share", share),
    slow_samples: slow,
    note: describeDifference(time, step),
    paper_share: step in PAPER_SHARES ? PAPER_SHARES[step as keyof typeof PAPER_SHARES] : null,
  };
}

/** What a difference of times says that isn't above its error. */
function describeDifference({ value, standardError }: Estimate, step: string): string | null {
  const noise = describeNoise({ value, standardError }, "us");
  if (noise || value > 0) return noise;
  return step === "other"
    ? "in sequence a kernel finds in the cache what the one before wrote"
    : "without it the rest takes longer: counted as nothing";
}
