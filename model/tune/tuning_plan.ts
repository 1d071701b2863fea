// Which windows a model is tuned on, in which order and how fast.
import { chunk } from "@std/collections/chunk";
import { createRandom } from "../../quant/random.ts";

export interface TuningSettings {
  /** Times that every window is taken. */
  readonly epochs: number;
  /** Largest learning rate: of norms' weights, and of the logarithms of scales. */
  readonly rate: number;
  /** Windows of a step. */
  readonly batchWindows: number;
  readonly seed: number;
}

/** What docs/accuracy_study.md (section 6) measured: twice as many epochs gain nothing with this much text. */
export const TUNING: Omit<TuningSettings, "seed"> = { epochs: 4, rate: 3e-3, batchWindows: 16 };

/** Steps until the learning rate is at its largest. */
const WARM_UP_STEPS = 8;

/** One window in so many is not tuned on: those say whether an epoch was worth it. */
const HELD_OUT_EVERY = 16;

/** Which windows are tuned on, and which are held out: the last of each sixteen, at least one. */
export interface WindowSplit<T> {
  readonly tuned: readonly T[];
  readonly heldOut: readonly T[];
}

/**
 * Splits windows. Where those of a short text overlap, some tokens that are held out are tuned on in a neighbour.
 *
 * @throws {RangeError} when there are fewer than two
 */
export function splitWindows<T>(windows: readonly T[]): WindowSplit<T> {
  if (windows.length < 2) throw new RangeError(`tuning has ${windows.length} windows, must have at least 2`);
  const every = Math.min(HELD_OUT_EVERY, windows.length);
  const isHeldOut = (_: T, i: number) => i % every === every - 1;
  return {
    tuned: windows.filter((window, i) => !isHeldOut(window, i)),
    heldOut: windows.filter(isHeldOut),
  };
}

/** The steps of an epoch, windows in an order of its own: as many in each as `batchWindows` allow, evenly. */
export function epochBatches<T>(windows: readonly T[], batchWindows: number, seed: number): T[][] {
  const random = createRandom(seed);
  const order = [...windows];
  for (let i = order.length - 1; i > 0; i--) {
    const other = random.integer(i + 1);
    [order[i], order[other]] = [order[other], order[i]];
  }
  return chunk(order, evenShare(order.length, batchWindows));
}

/** The size of each of the fewest parts of at most `most` elements. */
export function evenShare(length: number, most: number): number {
  return Math.ceil(length / Math.ceil(length / most));
}

/** Learning rate of a step, from 0 on: it rises for some steps and falls along a cosine. */
export function rateOfStep(rate: number, step: number, steps: number): number {
  return rate * Math.min(1, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + Math.cos((Math.PI * step) / steps));
}
