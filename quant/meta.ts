// The meta plane: scale code, zero code and refined group of each group, a 32-bit word for half a block.
//
// Word h of a row serves the groups 4h .. 4h+3, so a GPU lane that decodes half a block loads one word:
//
//     bit   0         4      7         11     14        18     21        25     28       32
//           | scale 0 | zero | scale 1 | zero | scale 2 | zero | scale 3 | zero | pick   |
//
// `pick` says which groups are refined, counted from the start of their run of `refineEvery` groups:
// 16 and 8: index in 4 and 3 bits, the same in all words of the run; 4: index in 2 bits for this half block;
// 2: two 1-bit indices, the lower run first; none and 1: zero. The last run of 16 or 8 in a row may be short. It may
// then have no refined group: its index is its number of groups.
import { HALF_BLOCK_GROUPS, type RefineEvery } from "./format.ts";

/** Bits of one group in a meta word. */
export const META_GROUP_BITS = 7;

/** Position of the pick field in a meta word. */
export const PICK_SHIFT = HALF_BLOCK_GROUPS * META_GROUP_BITS;

/**
 * Builds the meta words of one row.
 *
 * @param scaleCodes 0..15, one a group, a whole number of half blocks
 * @param zeroCodes 0..7, one a group
 * @param refined 1 for a refined group; one in each run of `refineEvery` groups, at most one in a short last run
 * @returns u32 words, one for every four groups
 * @throws {RangeError} when a run holds another number of refined groups
 */
export function packMeta(
  scaleCodes: Uint8Array,
  zeroCodes: Uint8Array,
  refined: Uint8Array,
  refineEvery: RefineEvery,
): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(scaleCodes.length / HALF_BLOCK_GROUPS);
  for (let group = 0; group < scaleCodes.length; group++) {
    const shift = (group % HALF_BLOCK_GROUPS) * META_GROUP_BITS;
    words[Math.floor(group / HALF_BLOCK_GROUPS)] |= (scaleCodes[group] | (zeroCodes[group] << 4)) << shift;
  }
  const picks = pickRefinedGroups(refined, refineEvery);
  for (let word = 0; word < words.length; word++) {
    words[word] |= pickField(picks, word, refineEvery) << PICK_SHIFT;
  }
  return words;
}

/** Index of the refined group within each run; its number of groups where a short run has none. */
function pickRefinedGroups(refined: Uint8Array, refineEvery: RefineEvery): number[] {
  const picks: number[] = [];
  if (refineEvery === "none") {
    if (refined.includes(1)) throw new RangeError("a group is refined, must be none");
    return picks;
  }
  for (let start = 0; start < refined.length; start += refineEvery) {
    const run = refined.subarray(start, start + refineEvery);
    const count = run.filter(Boolean).length;
    const isShort = run.length < refineEvery;
    if (count > 1 || (count === 0 && !isShort)) {
      throw new RangeError(
        `groups ${start}..${start + run.length - 1} hold ${count} refined groups, must hold ${isShort ? "0 or 1" : 1}`,
      );
    }
    picks.push(count === 0 ? run.length : run.indexOf(1));
  }
  return picks;
}

function pickField(picks: readonly number[], word: number, refineEvery: RefineEvery): number {
  switch (refineEvery) {
    case "none":
    case 1:
      return 0;
    case 2:
      return picks[2 * word] | (picks[2 * word + 1] << 1);
    default:
      return picks[Math.floor((word * HALF_BLOCK_GROUPS) / refineEvery)];
  }
}

/**
 * Index of the run (and so of the refine word) that refines `group` of a row, or -1 where it is not refined.
 *
 * @param word the meta word that serves the group
 */
export function refinedRunOf(word: number, group: number, refineEvery: RefineEvery): number {
  if (refineEvery === "none") return -1;
  const run = Math.floor(group / refineEvery);
  const field = word >>> PICK_SHIFT;
  const pick = refineEvery === 1 ? 0 : refineEvery === 2 ? (field >> (run % 2)) & 1 : field;
  return run * refineEvery + pick === group ? run : -1;
}

/** Whether a row's last run has no refined group, given its last meta word: only a short run may have none. */
export function lastRunIsPlain(lastWord: number, groups: number, refineEvery: RefineEvery): boolean {
  const shortGroups = refineEvery === "none" ? 0 : groups % refineEvery;
  return shortGroups > 0 && lastWord >>> PICK_SHIFT === shortGroups;
}

/** Checks the pick fields of one row of meta words. @throws {RangeError} with the value found and the one wanted */
export function validatePicks(words: Uint32Array, refineEvery: RefineEvery): void {
  const groups = words.length * HALF_BLOCK_GROUPS;
  for (let word = 0; word < words.length; word++) {
    const field = words[word] >>> PICK_SHIFT;
    const first = firstWordOfRun(word, refineEvery);
    const limit = pickLimit(first * HALF_BLOCK_GROUPS, groups, refineEvery);
    if (field >= limit) throw new RangeError(`pick field of meta word ${word} is ${field}, must be below ${limit}`);
    const wanted = words[first] >>> PICK_SHIFT;
    if (field !== wanted) {
      throw new RangeError(`pick field of meta word ${word} is ${field}, must be ${wanted} as in word ${first}`);
    }
  }
}

/** First meta word of the run that `word` lies in; runs shorter than a word count as one. */
function firstWordOfRun(word: number, refineEvery: RefineEvery): number {
  if (refineEvery === "none" || refineEvery <= HALF_BLOCK_GROUPS) return word;
  const wordsPerRun = refineEvery / HALF_BLOCK_GROUPS;
  return Math.floor(word / wordsPerRun) * wordsPerRun;
}

/** Pick fields must be below this; a short last run of a row may have no refined group. */
function pickLimit(firstGroup: number, groups: number, refineEvery: RefineEvery): number {
  if (refineEvery === "none" || refineEvery === 1) return 1;
  if (refineEvery === 2) return 4;
  return Math.min(refineEvery, groups - firstGroup + 1);
}
