/**
 * Bits where they matter: which matrices get how many refined groups, within one budget for all.
 *
 * @module
 */
import { packedBits, totalBits } from "../bits.ts";
import { REFINE_EVERY, type RefineEvery } from "../format.ts";

/** Matrices that get one density: those of a stage, which are multiplied at once. */
export interface DensityUnit {
  /** Rows and input channels of each matrix. */
  readonly shapes: readonly (readonly [rows: number, channels: number])[];
  /** What a model loses where these alone are quantized with one refined group in 8, e.g. KL in nats. */
  readonly loss: number;
}

/**
 * Errors with each of {@linkcode REFINE_EVERY} over those with one group in 8, weighted by the inputs' Hessian, under error
 * feedback. They are nearly the same for all matrices: of SmolLM2-135M 1.31, 1.105, 1, 0.83, 0.52, 0.05 with standard
 * deviations of 3 % (none: 10 %), of the embedded model 1.27, 1.115, 1, 0.81, 0.51, 0.07. Allocated by these means SmolLM2
 * is predicted to lose 0.3 % more than by the errors of each matrix, where one density loses 22 % more.
 */
export const DENSITY_ERRORS: readonly number[] = [1.3, 1.11, 1, 0.82, 0.515, 0.05];

/**
 * Chooses densities of the least loss: all begin without refined groups, and as long as the budget lasts the unit whose
 * next density saves the most loss a bit gets it, of equals the first. A loss is taken to follow the error.
 *
 * @param bitsPerWeight of all units together, every stored bit counted
 * @returns the density of each unit; nothing where even no refined groups at all exceed the budget
 */
export function allocateDensities(
  units: readonly DensityUnit[],
  bitsPerWeight: number,
): RefineEvery[] | undefined {
  const weights = sum(units.flatMap(({ shapes }) => shapes.map(([rows, channels]) => rows * channels)));
  const bits = units.map(({ shapes }) => REFINE_EVERY.map((every) => bitsOf(shapes, every)));
  const chosen = units.map(() => 0);
  let left = bitsPerWeight * weights - sum(bits.map(([least]) => least));
  if (left < 0) return undefined;
  for (;;) {
    let best:
      | { readonly rate: number; readonly unit: number; readonly density: number; readonly extra: number }
      | undefined;
    for (const [unit, { loss }] of units.entries()) {
      for (let density = chosen[unit] + 1; density < REFINE_EVERY.length; density++) {
        const extra = bits[unit][density] - bits[unit][chosen[unit]];
        const rate = loss * (DENSITY_ERRORS[chosen[unit]] - DENSITY_ERRORS[density]) / extra;
        if (extra <= left && rate > (best?.rate ?? 0)) best = { rate, unit, density, extra };
      }
    }
    if (!best) return chosen.map((density) => REFINE_EVERY[density]);
    chosen[best.unit] = best.density;
    left -= best.extra;
  }
}

/** Stored bits of matrices without outliers. */
function bitsOf(shapes: DensityUnit["shapes"], every: RefineEvery): number {
  return sum(shapes.map(([rows, channels]) => totalBits(packedBits(rows, channels, every, 0))));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
