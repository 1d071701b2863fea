// Claim `four_bit_share`: spending 10 % more bits on 4-bit weights gains less than 0.5 % accuracy.
import type { RefineEvery } from "../quant/format.ts";
import type { PickRule } from "../quant/refine_pick.ts";
import type { Evaluation } from "../model/evaluate/evaluation.ts";
import { scaled } from "../model/host/statistics.ts";
import { FEEDBACK, SETTINGS } from "../quant/recipe.ts";
import { accuracyGain, compareMethod, COMPARISON_COLUMNS, sweepSettings, windowSamples } from "./comparison.ts";
import type { Experiment } from "./experiment.ts";
import { formatEstimate, STATUS_RULE, statusOf } from "./results/judge.ts";
import type { Row, Verdict } from "./results/result.ts";

/** The paper's claim: less than this many points of accuracy for 10 % more bits. */
const CLAIMED_GAIN = 0.5;
const MORE_BITS = 0.1;

/** Densities and picks of the sweep; with none and with all groups refined there is nothing to pick. */
const SWEEP: readonly (readonly [density: RefineEvery, picks: readonly PickRule[]])[] = [
  ["none", ["error"]],
  [16, ["error"]],
  [8, ["random", "strip", "range", "error"]],
  [4, ["error"]],
  [2, ["error"]],
  [1, ["error"]],
];

/** Densities of a quick run: those that the verdict compares. */
const QUICK: readonly RefineEvery[] = [8, 4];

export const fourBitShare: Experiment = {
  id: "four_bit_share",
  title: "Share of 4-bit groups, and how they are picked",
  claim: "Spending 10 % more average bits on 4-bit weights gains less than 0.5 % accuracy.",
  differs: "Next tokens instead of the paper's tasks; the gain is scaled to 10 % more bits.",
  needsGpu: false,
  needsModel: true,
  async run(context) {
    const baseline = await context.baseline();
    const cases = SWEEP.filter(([density]) => !context.quick || QUICK.includes(density))
      .flatMap(([density, picks]) => (context.quick ? picks.slice(-1) : picks).map((pick) => ({ density, pick })));
    const rows: Row[] = [];
    const evaluations = new Map<string, Evaluation>();
    for (const [i, { density, pick }] of cases.entries()) {
      const settings = { ...SETTINGS, refineEvery: density, pick, seed: context.seed };
      const name = density === "none" ? "twobit_none" : density === 1 ? "twobit_all" : `twobit_1in${density}_${pick}`;
      const { row, evaluation } = await compareMethod(context, {
        name,
        method: () => ({ kind: "twobit", settings, feedback: FEEDBACK }),
        inputs: "unquantized",
        withoutChoices: true,
        onProgress: (share, step) => context.progress((i + share) / cases.length, step),
      });
      evaluations.set(name, evaluation);
      rows.push({ ...row, four_bit_share: density === "none" ? 0 : 1 / density, pick });
    }
    return {
      settings: {
        ...sweepSettings(baseline),
        "quantizer": "the method without corrected targets, one density for all layers, Hessians of the unquantized " +
          "model: equal calibration for every row",
        "picks": "random; strip (the same group of each run for all rows of the matrix, by range² x Hessian); " +
          "range; error (largest fall of the group's error)",
      },
      columns: [
        ...COMPARISON_COLUMNS,
        { key: "four_bit_share", label: "4-bit groups", unit: "share" },
        { key: "pick", label: "picked by", unit: "" },
      ],
      rows,
      samples: windowSamples(evaluations),
      verdict: judgeFourBitShare(rows, evaluations),
    };
  },
};

/** Points of accuracy gained from one refined group in 8 to one in 4, for 10 % more bits. */
export function judgeFourBitShare(rows: readonly Row[], evaluations: ReadonlyMap<string, Evaluation>): Verdict {
  const [less, more] = ["twobit_1in8_error", "twobit_1in4_error"];
  const bitsOf = (name: string) => Number(rows.find(({ method }) => method === name)?.bits_per_weight);
  const bits = bitsOf(more) / bitsOf(less) - 1;
  const gained = accuracyGain(evaluations.get(more)!, evaluations.get(less)!);
  const gain = scaled(gained, MORE_BITS / bits);
  return {
    paper: `< ${CLAIMED_GAIN}`,
    measured: formatEstimate(gain),
    unit: "points of next-token accuracy for 10 % more bits",
    status: statusOf(CLAIMED_GAIN - gain.value, gain.standardError),
    note:
      `From one refined group in 8 to one in 4: ${formatEstimate(gained)} points for ${
        (100 * bits).toFixed(1)
      } % more ` +
      `bits, scaled to 10 %. ${STATUS_RULE}`,
  };
}
