import fc from "fast-check";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import {
  createGroupProblem,
  type GroupProblem,
  roundGroup,
  searchAllCodes,
  searchGroup,
} from "../../quant/group_search.ts";
import { type OutlierSettings, pickOutliers } from "../../quant/outliers.ts";
import { groupOfRow, type GroupProbe, probeGroup, probeWithoutExtreme } from "../../quant/probe.ts";
import { createRandom } from "../../quant/random.ts";
import { pickRefined, type PickRule } from "../../quant/refine_pick.ts";
import { assert, assertAlmostEquals, assertClose, assertEquals } from "../assert.ts";
import { normals } from "./helpers.ts";

/** Values that a group's weights may take, written down from DESIGN.md 2.1 rather than from format.ts. */
function gridValues(scale: number, zeroCode: number, refined: boolean): number[] {
  const zero = refined ? 1.21875 + 0.1875 * zeroCode : 0.625 + 0.25 * zeroCode;
  return Array.from({ length: refined ? 16 : 4 }, (_, code) => ((refined ? code / 4 : code) - zero) * scale);
}

/** Error of a group with one scale and zero: every weight takes the nearest value, the later ones are pulled. */
function plainError({ size, start, pivot, pull, outliers }: GroupProblem, values: readonly number[]): number {
  const chosen: number[] = [];
  let total = 0;
  for (let k = 0; k < size; k++) {
    const wanted = start[k] - (pull ? chosen.reduce((sum, value, j) => sum + value * pull[j * 16 + k], 0) : 0);
    const isOutlier = (outliers >> k) & 1;
    const distances = values.map((value) => Math.abs(wanted - value));
    const value = isOutlier ? wanted : values[distances.indexOf(Math.min(...distances))];
    chosen.push(value);
    total += (pivot[k] * (wanted - value)) ** 2;
  }
  return total;
}

function randomProblem(seed: number, size: number, pulled: boolean, outliers: number): GroupProblem {
  const random = createRandom(seed);
  const problem = createGroupProblem();
  problem.size = size;
  problem.outliers = outliers;
  for (let k = 0; k < 16; k++) {
    problem.start[k] = random.normal() + (seed % 3) * 0.5;
    problem.pivot[k] = 0.2 + random.uniform();
  }
  if (pulled) problem.pull = Float64Array.from({ length: 256 }, () => 0.2 * random.normal());
  return problem;
}

const PROBLEMS = fc.record({
  seed: fc.nat(),
  size: fc.integer({ min: 1, max: 16 }),
  pulled: fc.boolean(),
  refined: fc.boolean(),
  outliers: fc.constantFrom(0, 1, 0b100000, 0x8001),
  d: fc.constantFrom(0.01, 0.05, 0.15, 1, 40),
});

Deno.test("searchGroup: finds the brute-force optimum over all scale and zero codes", () => {
  fc.assert(
    fc.property(PROBLEMS, ({ seed, size, pulled, refined, outliers, d }) => {
      const problem = randomProblem(seed, size, pulled, outliers);
      const errorOf = (scaleCode: number, zeroCode: number) =>
        plainError(problem, gridValues(scaleCode * d, zeroCode, refined));
      let best = Infinity;
      for (let scaleCode = 0; scaleCode < 16; scaleCode++) {
        for (let zeroCode = 0; zeroCode < 8; zeroCode++) best = Math.min(best, errorOf(scaleCode, zeroCode));
      }
      const found = searchGroup(problem, d, refined, { firstScale: 1, lastScale: 15, zeroReach: 7 });
      const tolerance = 1e-9 * (1 + best);
      assertAlmostEquals(found.error, best, tolerance);
      assertAlmostEquals(errorOf(found.scaleCode, found.zeroCode), best, tolerance);
    }),
    { seed: 5, numRuns: 300 },
  );
});

Deno.test("searchGroup: only the window's scales are tried, and 0 always", () => {
  const problem = randomProblem(4, 16, false, 0);
  const window = { firstScale: 2, lastScale: 6, zeroReach: 7 };
  assertEquals(searchGroup(problem, 0.01, false, window).scaleCode, 6); // would like 15
  assertEquals(searchGroup(problem, 1000, false, window).scaleCode, 0);
  assertEquals(searchGroup(problem, 0, true, window), { scaleCode: 0, zeroCode: 0, error: plainError(problem, [0]) });
});

Deno.test("searchAllCodes: finds the brute-force optimum also far from the likely codes", () => {
  // Weights that count little stretch the range, so that the best codes cover the others only.
  const won = { lowestScale: 0, outermostZero: 0 };
  for (let seed = 0; seed < 400; seed++) {
    const random = createRandom(1000 + seed);
    const [d, refined] = [0.05 + random.uniform(), seed % 2 === 1];
    const problem = randomProblem(seed, 16, false, 0);
    for (let k = 0; k < 16; k++) {
      const counts = k < 12;
      problem.pivot[k] = counts ? 1 : 1e-3;
      problem.start[k] = counts ? d * (1 + 0.3 * random.normal()) : 12 * d * random.normal();
    }
    let best = Infinity;
    for (let scaleCode = 0; scaleCode < 16; scaleCode++) {
      for (let zeroCode = 0; zeroCode < 8; zeroCode++) {
        best = Math.min(best, plainError(problem, gridValues(scaleCode * d, zeroCode, refined)));
      }
    }
    const found = searchAllCodes(problem, d, refined);
    assertAlmostEquals(found.error, best, 1e-9 * (1 + best));
    if (found.scaleCode === 1) won.lowestScale++;
    if (found.scaleCode > 0 && (found.zeroCode === 0 || found.zeroCode === 7)) won.outermostZero++;
  }
  assert(won.lowestScale > 0 && won.outermostZero > 0, JSON.stringify(won));
});

Deno.test("roundGroup: by hand, with pull and an outlier", () => {
  const problem = createGroupProblem();
  problem.size = 4;
  problem.start.set([1, 1, 1, -9]);
  problem.pivot.set([1, 2, 1, 1]);
  problem.pull = new Float64Array(256);
  problem.pull[1] = 0.5; // weight 0 on weight 1
  problem.pull[16 + 2] = -1; // weight 1 on weight 2
  problem.outliers = 0b1000;
  // Values -1.25, 0.75, 2.75, 4.75. 1 -> 0.75 (code 1); 1 - 0.375 = 0.625 -> 0.75 (1); 1 + 0.75 = 1.75, a tie -> 2.75 (2);
  // the outlier keeps -9 and its code is clamped. Error 0.25² + (2 * 0.125)² + 1² = 1.125.
  assertEquals(roundGroup(problem, 2, 0.625, false, Infinity), 1.125);
  assertEquals([...problem.values.subarray(0, 4)], [0.75, 0.75, 2.75, -9]);
  assertEquals([...problem.codes.subarray(0, 4)], [1, 1, 2, 0]);
  assertEquals(roundGroup(problem, 2, 0.625, false, 1.125), Infinity);
});

const four = (a: number, b: number, c: number, d: number) => [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d];

Deno.test("probeGroup: a group on the 2-bit grid, by hand", () => {
  // (code - 1.125) * 12: range 36, so the probe's unit is 1 and the scale 12 is tried.
  const probe = probeGroup(Float32Array.from(four(-13.5, -1.5, 10.5, 22.5)));
  assertEquals([probe.range, probe.extreme, probe.twoBit.error, probe.twoBit.scale], [36, 0, 0, 12]);
  assert(probe.fourBit.error > 0);
});

Deno.test("probeGroup: a group on the 4-bit grid, by hand", () => {
  // (code / 4 - 1.21875) * 12 with codes 0 .. 12: from -14.625 to 21.375, 36 apart; the mean code is 78 / 16, far from 12.
  const codes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0];
  const probe = probeGroup(Float32Array.from(codes, (code) => (code / 4 - 1.21875) * 12));
  assertEquals([probe.range, probe.extreme, probe.fourBit.error, probe.fourBit.scale], [36, 12, 0, 12]);
  assert(probe.twoBit.error > 0);
});

Deno.test("probeWithoutExtreme: the rest of the group, by hand", () => {
  const weights = Float32Array.from(four(-13.5, -1.5, 10.5, 22.5));
  weights[6] = 1000;
  const probe = probeGroup(weights);
  assertEquals([probe.range, probe.extreme], [1013.5, 6]);
  assertEquals(probeWithoutExtreme(weights, probe, false), { error: 0, scale: 12 });
});

Deno.test("probeGroup: a constant group keeps its value, zeros and an empty group need no scale", () => {
  for (const value of [0.5, -3, 2 ** -20]) {
    for (const size of [1, 16]) {
      const { range, twoBit, fourBit } = probeGroup(new Float32Array(size).fill(value));
      assertEquals(range, 0);
      for (const { error, scale } of [twoBit, fourBit]) {
        assert(scale > 0 && error < 0.01 * size * value ** 2, `value ${value}: error ${error}, scale ${scale}`);
      }
    }
  }
  const nothing = { error: 0, scale: 0 };
  for (const weights of [new Float32Array(16), new Float32Array(0)]) {
    assertEquals(probeGroup(weights), { range: 0, extreme: 0, twoBit: nothing, fourBit: nothing });
  }
});

Deno.test("groupOfRow: whole, short and padded groups", () => {
  const weights = Float32Array.from({ length: 40 }, (_, i) => i); // 2 rows of 20
  assertEquals([...groupOfRow(weights, 1, 20, 0)], Array.from({ length: 16 }, (_, i) => 20 + i));
  assertEquals([...groupOfRow(weights, 0, 20, 1)], [16, 17, 18, 19]);
  assertEquals(groupOfRow(weights, 0, 20, 2).length, 0);
});

/** Probes of a tile of normal weights; groups differ in size as rows and channels do in a model. */
function probesOf(seed: number, rows: number, channels: number) {
  const weights = normals(seed, rows * channels);
  const random = createRandom(seed + 1);
  for (let at = 0; at < weights.length; at += 16) {
    const gain = 0.2 + 2 * random.uniform();
    for (let i = at; i < Math.min(weights.length, at + 16); i++) weights[i] *= gain;
  }
  const groups = 8 * Math.ceil(channels / 128);
  const weightsOf = (row: number, group: number) => groupOfRow(weights, row, channels, group);
  const probes = Array.from(
    { length: rows },
    (_, row) => Array.from({ length: groups }, (_, group) => probeGroup(weightsOf(row, group))),
  );
  return { probes, weightsOf, groups };
}

const RULES: readonly PickRule[] = ["error", "error_hessian", "range", "range_hessian", "random", "strip"];

Deno.test("pickRefined: exactly one in every run, for every rule and density", () => {
  for (const channels of [384, 300, 40]) {
    const { probes, groups } = probesOf(3, 5, channels);
    const importance = Float64Array.from({ length: channels }, (_, i) => 1 + (i % 7));
    for (const rule of RULES) {
      for (const refineEvery of REFINE_EVERY) {
        for (const context of [{ seed: 1 }, { seed: 1, importance }]) {
          for (const row of pickRefined(probes, refineEvery, rule, context)) {
            assertEquals(row.length, groups);
            const run = refineEvery === "none" ? groups : refineEvery;
            for (let start = 0; start < groups; start += run) {
              const count = row.subarray(start, start + run).reduce((sum, picked) => sum + picked, 0);
              assertEquals(count, refineEvery === "none" ? 0 : 1);
            }
          }
        }
      }
    }
  }
});

Deno.test("pickRefined: never picks padding where a run holds weights", () => {
  const { probes } = probesOf(8, 4, 40); // groups 0, 1 and half of 2; 3 .. 7 are padding
  for (const rule of ["error", "error_hessian", "range", "range_hessian", "strip"] as const) {
    for (const importance of [undefined, new Float64Array(40).fill(2)]) {
      for (const row of pickRefined(probes, 8, rule, { seed: 1, ...(importance && { importance }) })) {
        assert(row.indexOf(1) < 3, `${rule}: ${row}`);
      }
    }
  }
});

/** Group with the highest score in each run of a row, by plain sorting. */
function highest(scores: readonly number[], run: number): number[] {
  const runs = Array.from({ length: Math.ceil(scores.length / run) }, (_, i) => scores.slice(i * run, (i + 1) * run));
  return runs.flatMap((part) => {
    const best = part.map((_, i) => i).sort((a, b) => part[b] - part[a] || a - b)[0];
    return part.map((_, i) => i === best ? 1 : 0);
  });
}

Deno.test("pickRefined: error picks the largest drop, range the largest range, _hessian weighs them", () => {
  const { probes } = probesOf(4, 6, 384);
  const importance = Float64Array.from({ length: 384 }, (_, i) => (i * 37) % 11);
  const energy = (group: number) =>
    importance.slice(group * 16, (group + 1) * 16).reduce((sum, value) => sum + value, 0) / 16;
  const scores: [PickRule, (probe: GroupProbe, group: number) => number][] = [
    ["error", ({ twoBit, fourBit }) => twoBit.error - fourBit.error],
    ["error_hessian", ({ twoBit, fourBit }, group) => (twoBit.error - fourBit.error) * energy(group)],
    ["range", ({ range }) => range],
    ["range_hessian", ({ range }, group) => range * range * energy(group)],
  ];
  for (const [rule, score] of scores) {
    for (const refineEvery of [16, 8, 4, 2] as const) {
      const picked = pickRefined(probes, refineEvery, rule, { seed: 1, importance });
      picked.forEach((row, r) => assertEquals([...row], highest(probes[r].map(score), refineEvery), rule));
    }
  }
});

Deno.test("pickRefined: strip picks the same groups in all rows, those of the largest sum", () => {
  const { probes } = probesOf(6, 16, 256);
  const importance = Float64Array.from({ length: 256 }, (_, i) => 1 + (i % 5));
  const energy = Array.from(
    { length: 16 },
    (_, g) => importance.slice(16 * g, 16 * g + 16).reduce((a, b) => a + b) / 16,
  );
  const sums = energy.map((value, g) => value * probes.reduce((sum, row) => sum + row[g].range ** 2, 0));
  for (const row of pickRefined(probes, 4, "strip", { seed: 1, importance })) assertEquals([...row], highest(sums, 4));
});

Deno.test("pickRefined: random repeats with its seed and differs with another", () => {
  const { probes } = probesOf(7, 16, 256);
  const picks = (seed: number) => pickRefined(probes, 8, "random", { seed }).map((row) => [...row]);
  assertEquals(picks(5), picks(5));
  assert(picks(5).join() !== picks(6).join());
  const counts = new Float64Array(8);
  for (let seed = 0; seed < 100; seed++) picks(seed).forEach((row) => row.forEach((one, g) => counts[g % 8] += one));
  assertClose(counts, new Array(8).fill(400), 5 * Math.sqrt(400)); // 3200 runs, an eighth each
});

const GROUPS: readonly OutlierSettings["groups"][] = ["two_bit", "four_bit", "both"];

Deno.test("pickOutliers: as many as the share says, in allowed groups only, the largest gains", () => {
  const [rows, channels] = [16, 300];
  const { probes, weightsOf } = probesOf(9, rows, channels);
  const refined = pickRefined(probes, 8 as RefineEvery, "error", { seed: 1 });
  for (const rule of ["error", "magnitude"] as const) {
    for (const groups of GROUPS) {
      const allowed = (r: number, g: number) =>
        weightsOf(r, g).length > 0 && (groups === "both" || (groups === "four_bit") === (refined[r][g] === 1));
      const gains = new Map<string, number>();
      probes.forEach((row, r) =>
        row.forEach((probe, g) => {
          if (!allowed(r, g)) return;
          const weights = [...weightsOf(r, g)];
          const mean = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
          const isRefined = refined[r][g] === 1;
          const now = isRefined ? probe.fourBit : probe.twoBit;
          const gain = rule === "error"
            ? now.error - probeWithoutExtreme(weightsOf(r, g), probe, isRefined).error
            : Math.max(...weights.map((weight) => Math.abs(weight - mean)));
          gains.set(`${r},${g}`, gain);
        })
      );
      for (const share of [0, 0.0001, 0.001, 0.0051, 0.5]) {
        const count = Math.min(Math.round(share * rows * channels), gains.size);
        const picked = pickOutliers(probes, refined, weightsOf, rows * channels, { share, groups, rule });
        const found = picked.flatMap(({ masks, scales }, r) => {
          assertEquals([...masks.keys()], [...scales.keys()]);
          return [...masks].map(([g, mask]) => {
            assertEquals(mask, 1 << probes[r][g].extreme);
            assertEquals(scales.get(g), probeWithoutExtreme(weightsOf(r, g), probes[r][g], refined[r][g] === 1).scale);
            return `${r},${g}`;
          });
        });
        assertEquals(found.length, count, `${rule} ${groups} ${share}`);
        const best = [...gains].sort(([, a], [, b]) => b - a).slice(0, count).map(([key]) => key);
        assertEquals(new Set(found), new Set(best), `${rule} ${groups} ${share}`);
      }
    }
  }
});

Deno.test("pickOutliers: no outlier in a constant group", () => {
  const weights = new Float32Array(16).fill(2);
  const probes = [[probeGroup(weights)]];
  const settings: OutlierSettings = { share: 1, groups: "both", rule: "error" };
  const [{ masks }] = pickOutliers(probes, [new Uint8Array(1)], () => weights, 16, settings);
  assertEquals(masks.size, 0);
});
