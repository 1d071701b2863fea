/**
 * Claim `four_bit_share`: spending 10 % more bits on 4-bit weights gains less than 0.5 % accuracy.
 *
 * @module
 */
import type { RefineEvery } from "../quant/format.ts";
import type { PickRule } from "../quant/refine_pick.ts";
import { FEEDBACK, SETTINGS } from "../model/recipe.ts";
import { compareMethod, COMPARISON_COLUMNS, comparisonSettings } from "./comparison.ts";
import type { Experiment } from "./experiment.ts";
import type { Row, Verdict } from "./result.ts";

/** The paper's claim: less than this many points of accuracy for 10 % more bits. */
const CLAIMED_GAIN = 0.5;
const MORE_BITS = 0.1;

/** Densities and picks of the sweep; with none and with all groups refined there is nothing to pick. */
const SWEEP: readonly (readonly [density: RefineEvery, picks: readonly PickRule[]])[] = [
  ["none", ["error"]],
  [16, ["error"]],
  [8, ["random", "strip", "range", "error"]],
  [4, ["random", "strip", "range", "error"]],
  [2, ["error"]],
  [1, ["error"]],
];

/** Densities of a quick run. */
const QUICK: readonly RefineEvery[] = ["none", 8, 4];

export const fourBitShare: Experiment = {
  id: "four_bit_share",
  title: "Share of 4-bit groups, and how they are picked",
  claim: "Spending 10 % more average bits on 4-bit weights gains less than 0.5 % accuracy.",
  needsGpu: false,
  async run(context) {
    const baseline = await context.baseline();
    const calibrator = await context.fixedCalibrator();
    const cases = SWEEP.filter(([density]) => !context.quick || QUICK.includes(density))
      .flatMap(([density, picks]) => (context.quick ? picks.slice(-1) : picks).map((pick) => ({ density, pick })));
    const rows: Row[] = [];
    for (const [i, { density, pick }] of cases.entries()) {
      const settings = { ...SETTINGS, refineEvery: density, pick, seed: context.seed };
      const name = density === "none" ? "twobit_none" : density === 1 ? "twobit_all" : `twobit_1in${density}_${pick}`;
      const { row } = await compareMethod(context, {
        name,
        method: () => ({ kind: "twobit", settings, feedback: FEEDBACK }),
        calibrator,
        withoutChoices: true,
        onProgress: (share, step) => context.progress((i + share) / cases.length, step),
      });
      rows.push({ ...row, four_bit_share: density === "none" ? 0 : 1 / density, pick });
    }
    return {
      settings: {
        ...comparisonSettings(baseline),
        "multiple choice": "left out: its standard error is too large for the differences of this sweep",
        "quantizer": "the method without corrected targets, one density for all layers, Hessians of the unquantized " +
          "model: equal calibration for every row",
        "picks":
          "random; strip (the same groups for all rows of a tile, by range² x Hessian, as in the paper's figure); " +
          "range; error (largest fall of the group's error)",
      },
      columns: [
        ...COMPARISON_COLUMNS,
        { key: "four_bit_share", label: "4-bit groups", unit: "share" },
        { key: "pick", label: "picked by", unit: "" },
      ],
      rows,
      verdict: judge(rows),
    };
  },
};

/** Points of accuracy gained from one refined group in 8 to one in 4, for 10 % more bits. */
function judge(rows: readonly Row[]): Verdict {
  const at = (share: number) => rows.find((row) => row.four_bit_share === share && row.pick === "error");
  const [less, more] = [at(1 / 8), at(1 / 4)];
  const bits = Number(more?.bits_per_weight) / Number(less?.bits_per_weight) - 1;
  const gained = Number(more?.top1) - Number(less?.top1);
  const gain = (gained * MORE_BITS) / bits;
  return {
    paper: `< ${CLAIMED_GAIN}`,
    measured: gain,
    unit: "points of next-token accuracy for 10 % more bits",
    status: gain < CLAIMED_GAIN ? "reproduced" : "not reproduced",
    note:
      `From one refined group in 8 to one in 4: ${gained.toFixed(2)} points for ${(100 * bits).toFixed(1)} % more ` +
      `bits, scaled to 10 %.`,
  };
}
