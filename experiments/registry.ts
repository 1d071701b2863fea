// All experiments, in the order of the paper's claims.
import { accuracy } from "./accuracy.ts";
import { async } from "./async.ts";
import { bits } from "./bits.ts";
import { calibration } from "./calibration.ts";
import { cost } from "./cost.ts";
import { decodePrecision } from "./decode_precision.ts";
import { dequantShare } from "./dequant_share.ts";
import { endToEnd } from "./end_to_end.ts";
import type { Experiment } from "./experiment.ts";
import { fourBitShare } from "./four_bit_share.ts";
import { outliers } from "./outliers.ts";
import { ranges } from "./ranges.ts";
import { throughput } from "./throughput.ts";

export const EXPERIMENTS: readonly Experiment[] = [
  bits,
  ranges,
  accuracy,
  fourBitShare,
  outliers,
  dequantShare,
  async,
  endToEnd,
  cost,
  calibration,
  throughput,
  decodePrecision,
];

/** The order in which all are run: what takes a second comes first. A quick run leaves some out. */
export function runOrder(quick: boolean): Experiment[] {
  const all = [ranges, ...EXPERIMENTS.filter((experiment) => experiment !== ranges)];
  return all.filter(({ takesWholeRun }) => !(quick && takesWholeRun));
}

/** Finds experiments by id. @throws {RangeError} for an unknown id, listing the known ones */
export function findExperiments(ids: readonly string[]): Experiment[] {
  return ids.map((id) => {
    const found = EXPERIMENTS.find((experiment) => experiment.id === id);
    if (!found) {
      throw new RangeError(`experiment is ${id}, must be one of ${EXPERIMENTS.map(({ id }) => id).join(", ")}`);
    }
    return found;
  });
}
