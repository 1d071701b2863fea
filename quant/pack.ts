// Packing and unpacking: between one array element a code and the planes of the packed format.
import { GROUP_CHANNELS, HALF_BLOCK_GROUPS, halfBlocksPerRow, refineWordsPerRow } from "./format.ts";
import { META_GROUP_BITS, packMeta, refinedRunOf } from "./meta.ts";
import { type PackedTensor, validatePackedTensor } from "./packed_tensor.ts";
import type { UnpackedTensor } from "./unpacked_tensor.ts";

/**
 * Packs codes into planes; {@linkcode unpack} is its inverse.
 *
 * @throws {RangeError} when a code is out of its range or a run of groups holds a wrong number of refined ones
 */
export function pack(tensor: UnpackedTensor): PackedTensor {
  const { rows, channels, refineEvery, codes, scaleCodes, zeroCodes, refined } = tensor;
  const groups = scaleCodes.length / rows;
  validateCodes(tensor);
  const base = new Uint32Array(rows * groups);
  const refine = new Uint32Array(rows * refineWordsPerRow(groups, refineEvery));
  const meta = new Uint32Array(rows * halfBlocksPerRow(channels));
  for (let row = 0; row < rows; row++) {
    const row0 = row * groups;
    const metaRow = packMeta(
      scaleCodes.subarray(row0, row0 + groups),
      zeroCodes.subarray(row0, row0 + groups),
      refined.subarray(row0, row0 + groups),
      refineEvery,
    );
    meta.set(metaRow, row * metaRow.length);
    for (let group = 0; group < groups; group++) {
      const isRefined = refined[row0 + group] === 1;
      let baseWord = 0;
      let refineWord = 0;
      for (let i = 0; i < GROUP_CHANNELS; i++) {
        const code = codes[(row0 + group) * GROUP_CHANNELS + i];
        baseWord |= (isRefined ? code >> 2 : code) << (2 * i);
        refineWord |= (code & 3) << (2 * i);
      }
      base[row0 + group] = baseWord;
      if (isRefined) {
        const run = refinedRunOf(metaRow[Math.floor(group / HALF_BLOCK_GROUPS)], group, refineEvery);
        refine[(row * refine.length) / rows + run] = refineWord;
      }
    }
  }
  const packed: PackedTensor = {
    rows,
    channels,
    refineEvery,
    base,
    refine,
    meta,
    tileScale: tensor.tileScale,
    outlierStart: tensor.outliers.start,
    outlierChannel: tensor.outliers.channel,
    outlierResidual: tensor.outliers.residual,
  };
  validatePackedTensor(packed);
  return packed;
}

function validateCodes({ codes, scaleCodes, zeroCodes, refined }: UnpackedTensor): void {
  const groups = scaleCodes.length;
  const lengths = [["codes", codes, groups * GROUP_CHANNELS], ["zeroCodes", zeroCodes, groups], [
    "refined",
    refined,
    groups,
  ]] as const;
  for (const [name, { length }, wanted] of lengths) {
    if (length !== wanted) throw new RangeError(`${name} has ${length} elements, must have ${wanted}`);
  }
  for (let group = 0; group < scaleCodes.length; group++) {
    const limit = refined[group] === 1 ? 16 : 4;
    for (let i = group * GROUP_CHANNELS; i < (group + 1) * GROUP_CHANNELS; i++) {
      if (codes[i] >= limit) throw new RangeError(`code ${i} is ${codes[i]}, must be below ${limit}`);
    }
    if (scaleCodes[group] > 15) {
      throw new RangeError(`scale code ${group} is ${scaleCodes[group]}, must be at most 15`);
    }
    if (zeroCodes[group] > 7) throw new RangeError(`zero code ${group} is ${zeroCodes[group]}, must be at most 7`);
  }
}

/** Unpacks planes into one array element a code. The tensor must be valid ({@linkcode validatePackedTensor}). */
export function unpack(tensor: PackedTensor): UnpackedTensor {
  const { rows, channels, refineEvery, base, refine, meta } = tensor;
  const groups = base.length / rows;
  const refineWords = refine.length / rows;
  const codes = new Uint8Array(base.length * GROUP_CHANNELS);
  const scaleCodes = new Uint8Array(base.length);
  const zeroCodes = new Uint8Array(base.length);
  const refined = new Uint8Array(base.length);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const index = row * groups + group;
      const word = meta[Math.floor(index / HALF_BLOCK_GROUPS)];
      const bits = word >>> ((group % HALF_BLOCK_GROUPS) * META_GROUP_BITS);
      scaleCodes[index] = bits & 15;
      zeroCodes[index] = (bits >> 4) & 7;
      const run = refinedRunOf(word, group, refineEvery);
      refined[index] = run >= 0 ? 1 : 0;
      for (let i = 0; i < GROUP_CHANNELS; i++) {
        const baseCode = (base[index] >>> (2 * i)) & 3;
        codes[index * GROUP_CHANNELS + i] = run < 0
          ? baseCode
          : (baseCode << 2) | ((refine[row * refineWords + run] >>> (2 * i)) & 3);
      }
    }
  }
  return {
    rows,
    channels,
    refineEvery,
    codes,
    scaleCodes,
    zeroCodes,
    refined,
    tileScale: tensor.tileScale,
    outliers: {
      start: tensor.outlierStart,
      channel: tensor.outlierChannel,
      residual: tensor.outlierResidual,
    },
  };
}
