// Bits a weight, term by term, from shapes alone; checked against the bytes of packed tensors in the tests.
import { GROUP_CHANNELS, groupsPerRow, type RefineEvery, refineWordsPerRow, tilesPerColumn } from "./format.ts";

/** Bits of each part of a matrix; padding is included in the part that is padded. */
export interface BitTerms {
  /** Codes of all weights: the base plane, or 2- and 4-bit codes. */
  readonly codes: number;
  /** Further bits of refined groups. */
  readonly refine: number;
  /** Scale codes, or f16 scales. */
  readonly scaleCodes: number;
  /** Zero codes. */
  readonly zeroCodes: number;
  /** Which groups are refined, and unused bits. */
  readonly picks: number;
  /** Second-order scales (and zeros). */
  readonly secondOrder: number;
  /** Channels and residuals of outliers. */
  readonly outliers: number;
  /** Where each row's outliers start. */
  readonly outlierStarts: number;
}

export function totalBits(terms: BitTerms): number {
  return Object.values(terms).reduce((sum, bits) => sum + bits, 0);
}

export function addBits(a: BitTerms, b: BitTerms): BitTerms {
  return mapTerms((key) => a[key] + b[key]);
}

export function bitsPerWeight(terms: BitTerms, weights: number): BitTerms {
  return mapTerms((key) => terms[key] / weights);
}

function mapTerms(value: (key: keyof BitTerms) => number): BitTerms {
  return {
    codes: value("codes"),
    refine: value("refine"),
    scaleCodes: value("scaleCodes"),
    zeroCodes: value("zeroCodes"),
    picks: value("picks"),
    secondOrder: value("secondOrder"),
    outliers: value("outliers"),
    outlierStarts: value("outlierStarts"),
  };
}

export const NO_BITS: BitTerms = mapTerms(() => 0);

/** Bits of a matrix in the packed format, version 2. */
export function packedBits(rows: number, channels: number, refineEvery: RefineEvery, outliers: number): BitTerms {
  const groups = groupsPerRow(channels);
  return {
    codes: rows * groups * GROUP_CHANNELS * 2,
    refine: rows * refineWordsPerRow(groups, refineEvery) * 32,
    scaleCodes: rows * groups * 4,
    zeroCodes: rows * groups * 3,
    picks: rows * groups,
    secondOrder: tilesPerColumn(rows) * groups * 16,
    outliers: outliers * 32,
    outlierStarts: outliers === 0 ? 0 : (rows + 1) * 32,
  };
}
