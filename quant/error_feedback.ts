// Error feedback: quantizing a row channel by channel, each later channel making up for the errors of the earlier ones.
//
// The objective is (w - q) H (w - q)ᵀ, H = sum of x xᵀ over the layer's inputs x. With H = V Vᵀ, V upper triangular,
// the channel k is rounded from w[k] + sum over i < k of (w[i] - q[i]) V[i, k] / V[k, k]. This is GPTQ (Frantar et al.
// 2022) in the form of LDLQ (Chee et al. 2023): the same codes, without the inverse of H.
import { choleskyUpper } from "./cholesky.ts";
import { dotTwoRuns } from "./dot.ts";
import { GROUP_CHANNELS } from "./format.ts";
import { type Grid, nearestCode } from "./grid.ts";

/** What error feedback needs of a Hessian; shared by all matrices that have the same input. */
export interface Feedback {
  /** Input channels. */
  readonly channels: number;
  /** [channels]: the Hessian's diagonal, before damping. */
  readonly diagonal: Float64Array<ArrayBuffer>;
  /** [channels]: channels in the order in which they are quantized. */
  readonly order: Uint16Array<ArrayBuffer>;
  /** f64 [channels, channels]: row k holds V[i, k] / V[k, k] for i < k and V[k, k] itself at k, in quantization order. */
  readonly coefficients: Float64Array;
  /** What was added to the diagonal. */
  readonly added: number;
  /** Whether the channels of a group of 16 follow each other in `order`, each group in its natural order. */
  readonly keepsGroups: boolean;
}

/** How feedback is prepared. */
export interface FeedbackSettings {
  /** Added to the Hessian's diagonal, as a share of its mean, 0 or more; tripled until the factorization succeeds. */
  readonly damping: number;
  /**
   * Which channels are quantized first: those with the largest Hessian diagonal (`channels`), the groups of 16
   * with the largest sum of it, each in its natural order (`groups`), or all from the left (`natural`).
   * Groups stay where they are in all three, so the layout doesn't change.
   */
  readonly order: "channels" | "groups" | "natural";
}

/** Factorizations that are tried before a Hessian is given up. */
export const MAX_TRIES = 12;

/** Damping that is tried after none. */
const LEAST_DAMPING = 1e-6;

/** Damping to try after some that was too little. */
export function nextDamping(damping: number): number {
  return Math.max(3 * damping, LEAST_DAMPING);
}

/**
 * Prepares error feedback from a Hessian. Channels that are never active (zero on the diagonal) get a unit diagonal
 * and so neither receive nor give feedback.
 *
 * @param hessian f64 [channels, channels], symmetric, row-major
 * @throws {RangeError} when the Hessian holds NaN or infinity or cannot be factored with any damping that is tried
 */
export function prepareFeedback(hessian: Float64Array, settings: FeedbackSettings): Feedback {
  const channels = Math.sqrt(hessian.length);
  if (channels === 0 || !Number.isInteger(channels)) {
    throw new TypeError(`Hessian has ${hessian.length} elements, must be a square`);
  }
  if (!(settings.damping >= 0)) throw new RangeError(`damping is ${settings.damping}, must be at least 0`);
  const bad = hessian.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`Hessian holds ${hessian[bad]} at element ${bad}, must be finite`);
  const diagonal = Float64Array.from({ length: channels }, (_, i) => hessian[i * channels + i]);
  const order = orderChannels(diagonal, settings.order);
  const meanDiagonal = diagonal.reduce((sum, value) => sum + value, 0) / channels;
  let damping = settings.damping;
  for (let attempt = 0; attempt < MAX_TRIES; attempt++, damping = nextDamping(damping)) {
    const damped = orderAndDamp(hessian, order, damping * meanDiagonal);
    const coefficients = choleskyUpper(damped, channels);
    if (!coefficients) continue;
    for (let k = 0; k < channels; k++) {
      const pivot = coefficients[k * channels + k];
      for (let i = 0; i < k; i++) coefficients[k * channels + i] /= pivot;
    }
    return {
      channels,
      diagonal,
      order,
      coefficients,
      added: damping * meanDiagonal,
      keepsGroups: settings.order !== "channels",
    };
  }
  throw new RangeError(
    `Hessian of ${channels} channels is not positive definite with damping from ${settings.damping} up to ${
      damping / 3
    } of its mean diagonal`,
  );
}

/** Channels in the order in which they are quantized, by the Hessian's diagonal f64 [channels]. */
export function orderChannels(diagonal: Float64Array, order: FeedbackSettings["order"]): Uint16Array<ArrayBuffer> {
  const channels = Uint16Array.from(diagonal, (_, i) => i);
  if (order === "natural") return channels;
  const width = order === "groups" ? GROUP_CHANNELS : 1;
  const energy = new Float64Array(Math.ceil(diagonal.length / width));
  diagonal.forEach((value, channel) => energy[Math.floor(channel / width)] += value);
  return channels.sort((a, b) => {
    const [groupA, groupB] = [Math.floor(a / width), Math.floor(b / width)];
    return energy[groupB] - energy[groupA] || a - b;
  });
}

function orderAndDamp(hessian: Float64Array, order: Uint16Array, added: number): Float64Array<ArrayBuffer> {
  const size = order.length;
  const damped = new Float64Array(size * size);
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) damped[i * size + j] = hessian[order[i] * size + order[j]];
    const at = i * size + i;
    damped[at] = damped[at] === 0 ? 1 : damped[at] + added;
  }
  return damped;
}

/** Checks that feedback belongs to a matrix. @throws {TypeError} with both channel counts */
export function checkFeedback(feedback: Feedback, channels: number): void {
  if (feedback.channels !== channels) {
    throw new TypeError(`feedback is for ${feedback.channels} channels, must be for ${channels}`);
  }
}

/**
 * Quantizes a matrix to a grid with error feedback.
 *
 * @param weights f32 [rows, channels]
 * @returns codes [rows, channels]
 */
export function quantizeWithFeedback(weights: Float32Array, grid: Grid, feedback: Feedback): Uint8Array<ArrayBuffer> {
  const { rows, channels, groups, groupOf, step, lowest, maxCode } = grid;
  checkFeedback(feedback, channels);
  const { order } = feedback;
  const codes = new Uint8Array(rows * channels);
  const errors = new Float64Array(FEEDBACK_ROWS * channels);
  const sums = new Float64Array(FEEDBACK_ROWS);
  for (let first = 0; first < rows; first += FEEDBACK_ROWS) {
    const count = Math.min(FEEDBACK_ROWS, rows - first);
    for (let k = 0; k < channels; k++) {
      const channel = order[k];
      feedBack(errors, count, feedback, k, k, sums);
      for (let r = 0; r < count; r++) {
        const at = (first + r) * channels + channel;
        const group = (first + r) * groups + groupOf[channel];
        const code = nearestCode(weights[at] + sums[r], lowest[group], step[group], maxCode[group]);
        codes[at] = code;
        errors[r * channels + k] = weights[at] - (lowest[group] + code * step[group]);
      }
    }
  }
  return codes;
}

/** Rows that go side by side: they read the same coefficients, which are megabytes. */
const FEEDBACK_ROWS = 16;

/**
 * What the errors of the first channels give to a later one, for some rows.
 *
 * @param errors f64 [rows, channels], in the order of feedback
 * @param first how many channels give
 * @param sums f64 [rows, rounded up to even]: gets them
 */
export function feedBack(
  errors: Float64Array,
  rows: number,
  { channels, coefficients }: Feedback,
  channel: number,
  first: number,
  sums: Float64Array,
): void {
  for (let r = 0; r < rows; r += 2) {
    // The last row of an odd number goes beside itself.
    const last = Math.min(r + 1, rows - 1);
    dotTwoRuns(errors, r * channels, last * channels, coefficients, channel * channels, first, sums, r);
  }
}
