/**
 * The recommended way to quantize a model: the method's settings, and which kinds of matrix get more refined groups.
 *
 * @module
 */
import { packedBits, totalBits } from "../quant/bits.ts";
import type { FeedbackSettings } from "../quant/error_feedback.ts";
import type { RefineEvery } from "../quant/format.ts";
import { WITHOUT_OUTLIERS } from "../quant/outliers.ts";
import type { Quantizer } from "../quant/quantize.ts";
import type { TwobitSettings } from "../quant/twobit.ts";
import { LINEAR_KINDS, type LinearKind, linearShape, type LinearSizes } from "./llama.ts";

/** Bits a weight that the paper claims and that a model must not exceed, every stored bit of its linear layers counted. */
export const BUDGET_BITS = 2.85;

/** Error feedback of the method: groups with the most energetic inputs first. */
export const FEEDBACK: FeedbackSettings = { damping: 0.1, order: "groups" };

/** Calibration windows of 512 tokens. More give better targets (perplexity over unquantized at one density, 32: 1.075, 64: 1.065, 128: 1.057). */
export const DEFAULT_WINDOWS = 40;

/** Settings of the method: one refined group in 8, picked where the error falls most, no outliers. */
export const SETTINGS: TwobitSettings = { refineEvery: 8, pick: "error", outliers: WITHOUT_OUTLIERS, seed: 1 };

/** The method with some settings changed. */
export function twobitQuantizer(changes: Partial<TwobitSettings> = {}): Quantizer {
  return { kind: "twobit", settings: { ...SETTINGS, ...changes }, feedback: FEEDBACK, correctTarget: true };
}

/** Density of refined groups of each kind of matrix. */
export type Densities = Readonly<Record<LinearKind, RefineEvery>>;

/**
 * Steps away from one refined group in 8, found on the embedded model: first those that free bits at little loss (q needs
 * no refined groups), then those that spend them where they are worth most (v, down, k). A step that would leave the
 * budget is passed over, so the plan adapts to the shares that the kinds have in a model. In the study that quant/twobit.ts
 * names they took 1.061 x the unquantized perplexity to 1.055.
 */
const STEPS: readonly (readonly [kind: LinearKind, density: RefineEvery])[] = [
  ["q_proj", "none"],
  ["o_proj", 16],
  ["gate_proj", 16],
  ["up_proj", 16],
  ["v_proj", 4],
  ["v_proj", 2],
  ["down_proj", 4],
  ["k_proj", 4],
  ["k_proj", 2],
  ["v_proj", 1],
];

/**
 * Densities within a budget; the sparsest plan where the padding of narrow matrices alone exceeds it, so check
 * {@linkcode modelBits}.
 */
export function planDensities(sizes: LinearSizes, budgetBits: number = BUDGET_BITS): Densities {
  const densities: Record<LinearKind, RefineEvery> = {
    q_proj: 8,
    k_proj: 8,
    v_proj: 8,
    o_proj: 8,
    gate_proj: 8,
    up_proj: 8,
    down_proj: 8,
  };
  for (const [kind, density] of STEPS) {
    const bits = modelBits(sizes, { ...densities, [kind]: density });
    if (bits <= budgetBits || bits < modelBits(sizes, densities)) densities[kind] = density;
  }
  return densities;
}

/** Bits a weight of a model's linear layers without outliers. */
export function modelBits(sizes: LinearSizes, densities: Densities): number {
  let bits = 0;
  let weights = 0;
  for (const kind of LINEAR_KINDS) {
    const [rows, channels] = linearShape(sizes, kind);
    bits += totalBits(packedBits(rows, channels, densities[kind], 0));
    weights += rows * channels;
  }
  return bits / weights;
}
