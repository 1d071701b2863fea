import { packedBits, totalBits } from "../../../quant/bits.ts";
import { allocateDensities, DENSITY_ERRORS, type DensityUnit } from "../../../quant/densities/allocate_densities.ts";
import { REFINE_EVERY, type RefineEvery } from "../../../quant/format.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals } from "../../assert.ts";

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function lossOf(units: readonly DensityUnit[], densities: readonly RefineEvery[]): number {
  return sum(units.map(({ loss }, i) => loss * DENSITY_ERRORS[REFINE_EVERY.indexOf(densities[i])]));
}

function bitsPerWeight(units: readonly DensityUnit[], densities: readonly RefineEvery[]): number {
  const bits = units.map((unit, i) => unit.bits[REFINE_EVERY.indexOf(densities[i])]);
  return sum(bits) / sum(units.map(({ weights }) => weights));
}

/** Every choice of densities. */
function choices(units: number): RefineEvery[][] {
  if (units === 0) return [[]];
  return choices(units - 1).flatMap((others) => REFINE_EVERY.map((every) => [...others, every]));
}

/** A matrix without outliers. */
const matrix = (rows: number, channels: number, loss: number): DensityUnit => ({
  weights: rows * channels,
  bits: REFINE_EVERY.map((every) => totalBits(packedBits(rows, channels, every, 0))),
  loss,
});

/** Rows of 1024 channels take 2.5625 bits without refined groups; each density adds 2 / density bits. */
const square = (loss: number, rows = 16) => matrix(rows, 1024, loss);

Deno.test("allocateDensities: by hand", () => {
  const units = [square(1), square(10), square(3)];
  // For a loss of 1, the first step (none to 16) saves 0.19 for 0.125 bits, 1.52 a bit; the next ones 0.88 (to 8), 0.72 (to
  // 4), 0.61 (to 2) and 0.465 (to 1). So the second unit's steps, ten times that, come before the third's first, 4.56.
  assertEquals(allocateDensities(units, 2.5625), ["none", "none", "none"]);
  assertEquals(allocateDensities(units, 2.5625 + 1 / 3), ["none", 2, "none"]);
  assertEquals(allocateDensities(units, 2.5625 + 2 / 3), ["none", 1, "none"]);
  assertEquals(allocateDensities(units, 2.5625 + 2.125 / 3), ["none", 1, 16]);
  // The same where each is four times as large with as much to lose.
  assertEquals(allocateDensities(units.map(({ loss }) => square(loss, 64)), 2.5625 + 1 / 3), ["none", 2, "none"]);
  // Of equals the first.
  assertEquals(allocateDensities([square(1), square(1)], 2.5625 + 1 / 16), [16, "none"]);
  // Half a bit for a unit is out of reach, so the step after the first is that to 8, and no other fits.
  assertEquals(allocateDensities([square(1)], 2.5625 + 0.49), [8]);
  // What loses nothing gets nothing, however much is left.
  assertEquals(allocateDensities([square(0), square(1)], 16), ["none", 1]);
});

Deno.test("allocateDensities: nothing where the budget doesn't hold the least", () => {
  assertEquals(allocateDensities([square(1)], 2.5624), undefined);
  // A row of 8 channels is padded.
  assertEquals(allocateDensities([matrix(16, 8, 1)], 2.85), undefined);
});

Deno.test("allocateDensities: never above the budget, and within one step of the best of all choices", () => {
  const random = createRandom(3);
  const all = choices(4);
  for (let n = 0; n < 20; n++) {
    const units = Array.from({ length: 4 }, () => square(Math.exp(2 * random.normal()), 16 * (1 + random.integer(4))));
    const budget = 2.5625 + 0.6 * random.uniform();
    const chosen = allocateDensities(units, budget);
    assert(chosen);
    assert(bitsPerWeight(units, chosen) <= budget, `${bitsPerWeight(units, chosen)} bits of ${budget}`);
    const best = Math.min(
      ...all.filter((each) => bitsPerWeight(units, each) <= budget).map((each) => lossOf(units, each)),
    );
    // Steps of falling worth reach the best but for the first that doesn't fit.
    const step = Math.max(...units.map(({ loss }) => loss)) * (DENSITY_ERRORS[0] - DENSITY_ERRORS[5]);
    assert(lossOf(units, chosen) <= best + step, `loses ${lossOf(units, chosen)}, at best ${best}`);
    assertEquals(allocateDensities(units, budget), chosen, "the same again");
  }
});
