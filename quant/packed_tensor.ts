// A weight matrix in the packed format, version 2: the planes as they lie in files and in GPU buffers.
import {
  groupsPerRow,
  halfBlocksPerRow,
  REFINE_EVERY,
  type RefineEvery,
  refineWordsPerRow,
  tilesPerColumn,
} from "./format.ts";
import { lastRunIsPlain, validatePicks } from "./meta.ts";

/** Shape and density of a packed matrix. */
export interface PackedShape {
  /** Output rows. */
  readonly rows: number;
  /** Input channels, without padding. */
  readonly channels: number;
  /** One refined group in every so many groups of a row. */
  readonly refineEvery: RefineEvery;
}

/**
 * One packed matrix W[rows, channels]; y = W x. All planes are row-major, words little end first.
 *
 * | plane | type | shape | bits |
 * |---|---|---|---|
 * | base | u32 | [rows, half blocks, 4] | word g holds group g of the half; channel c of the group in bits 2c, 2c+1 |
 * | refine | u32 | [rows, words] | word j refines the j-th run of `refineEvery` groups of the row, same bit order as base |
 * | meta | u32 | [rows, half blocks] | see {@linkcode packMeta} |
 * | tileScale | f16 | [tiles, groups] | second-order scale d of 16 rows x 1 group |
 * | outlierStart | u32 | [rows + 1] | outliers of row r are outlierStart[r] .. outlierStart[r + 1] - 1 |
 * | outlierChannel | u16 | [outliers] | input channel, ascending within a row |
 * | outlierResidual | f16 | [outliers] | added to the decoded weight |
 *
 * A tensor without outliers has empty outlier planes, `outlierStart` too.
 */
export interface PackedTensor extends PackedShape {
  /** u32 [rows, half blocks, 4]. */
  readonly base: Uint32Array<ArrayBuffer>;
  /** u32 [rows, refine words]. */
  readonly refine: Uint32Array<ArrayBuffer>;
  /** u32 [rows, half blocks]. */
  readonly meta: Uint32Array<ArrayBuffer>;
  /** f16 [tiles, groups]. */
  readonly tileScale: Float16Array<ArrayBuffer>;
  /** u32 [rows + 1], or empty. */
  readonly outlierStart: Uint32Array<ArrayBuffer>;
  /** u16 [outliers]. */
  readonly outlierChannel: Uint16Array<ArrayBuffer>;
  /** f16 [outliers]. */
  readonly outlierResidual: Float16Array<ArrayBuffer>;
}

/** Name of each plane of a {@linkcode PackedTensor}. */
export type PlaneName = Exclude<keyof PackedTensor, keyof PackedShape>;

/** Number of elements that each plane of a tensor of this shape has, given its number of outliers. */
export function planeLengths(
  rows: number,
  channels: number,
  refineEvery: RefineEvery,
  outliers: number,
): Readonly<Record<PlaneName, number>> {
  const groups = groupsPerRow(channels);
  return {
    base: rows * groups,
    refine: rows * refineWordsPerRow(groups, refineEvery),
    meta: rows * halfBlocksPerRow(channels),
    tileScale: tilesPerColumn(rows) * groups,
    outlierStart: outliers === 0 ? 0 : rows + 1,
    outlierChannel: outliers,
    outlierResidual: outliers,
  };
}

/**
 * Checks every rule of the format that arithmetic relies on: plane lengths, finite scales and residuals,
 * refined group indices inside the row, spare bits and words zero, outlier starts ascending, channels in range and
 * ascending.
 *
 * @throws {RangeError} with the value found and the one wanted
 */
export function validatePackedTensor(tensor: PackedTensor): void {
  const { rows, channels, refineEvery } = tensor;
  if (!REFINE_EVERY.includes(refineEvery)) {
    throw new RangeError(`refineEvery is ${refineEvery}, must be one of ${REFINE_EVERY.join(", ")}`);
  }
  for (const [name, value] of [["rows", rows], ["channels", channels]] as const) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`${name} is ${value}, must be a positive integer`);
    }
  }
  if (channels > 65536) {
    throw new RangeError(`channels is ${channels}, must be at most 65536 (outlier channels are 16 bits)`);
  }
  const lengths = planeLengths(rows, channels, refineEvery, tensor.outlierChannel.length);
  for (const [name, length] of Object.entries(lengths) as [PlaneName, number][]) {
    if (tensor[name].length !== length) {
      throw new RangeError(`plane ${name} has ${tensor[name].length} elements, must have ${length}`);
    }
  }
  validateFinite("tileScale", tensor.tileScale);
  validateFinite("outlierResidual", tensor.outlierResidual);
  validateMeta(tensor);
  validateLastRefineWords(tensor);
  validateOutliers(tensor);
}

function validateFinite(name: PlaneName, values: Float16Array): void {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new RangeError(`plane ${name} holds ${values[bad]} at ${bad}, must be finite`);
}

function validateMeta({ meta, rows, refineEvery }: PackedTensor): void {
  const wordsPerRow = meta.length / rows;
  for (let row = 0; row < rows; row++) {
    try {
      validatePicks(meta.subarray(row * wordsPerRow, (row + 1) * wordsPerRow), refineEvery);
    } catch (cause) {
      throw new RangeError(`row ${row}: ${(cause as Error).message}`, { cause });
    }
  }
}

/** A run without a refined group has nothing for its refine word to say. */
function validateLastRefineWords({ meta, refine, rows, channels, refineEvery }: PackedTensor): void {
  const groups = groupsPerRow(channels);
  for (let row = 0; row < rows; row++) {
    const word = refine[((row + 1) * refine.length) / rows - 1];
    if (word !== 0 && lastRunIsPlain(meta[((row + 1) * meta.length) / rows - 1], groups, refineEvery)) {
      throw new RangeError(`row ${row}: last refine word is ${word}, must be 0 where its run has no refined group`);
    }
  }
}

function validateOutliers({ rows, channels, outlierStart, outlierChannel }: PackedTensor): void {
  if (outlierStart.length === 0) return;
  if (outlierStart[0] !== 0 || outlierStart[rows] !== outlierChannel.length) {
    throw new RangeError(
      `outlierStart runs from ${outlierStart[0]} to ${outlierStart[rows]}, must run from 0 to ${outlierChannel.length}`,
    );
  }
  for (let row = 0; row < rows; row++) {
    const end = outlierStart[row + 1];
    if (end < outlierStart[row] || end > outlierChannel.length) {
      throw new RangeError(
        `outlierStart is ${end} after row ${row}, must be ${outlierStart[row]}..${outlierChannel.length}`,
      );
    }
    for (let i = outlierStart[row]; i < end; i++) {
      const previous = i > outlierStart[row] ? outlierChannel[i - 1] : -1;
      if (outlierChannel[i] >= channels || outlierChannel[i] <= previous) {
        throw new RangeError(
          `outlier ${i} of row ${row} is at channel ${
            outlierChannel[i]
          }, must be above ${previous} and below ${channels}`,
        );
      }
    }
  }
}
