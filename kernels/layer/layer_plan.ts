// Sizes of decode_layer.wgsl: what workgroups hand over, and what each of them takes of every product.
import { attentionRowLanes, splitsWithin } from "../attention/decode_attention.ts";
import { LANE_GROUPS } from "../product/fused_gemv.ts";
import { type ActivationBits, cellBytes } from "../product/pack_activations.ts";
import { type DeviceProfile, evenWorkgroups } from "../gpu/device_profile.ts";
import type { LayerShape } from "./layer_run.ts";
import { STEP_ROWS } from "../matrix/packed_matrix.ts";
import type { LayerArena, LayerMatrix } from "../matrix/share_planes.ts";
import { CONTROL_WORDS } from "./co_resident.ts";
import type { Team } from "../gpu/team.ts";

/** Vectors of the relay are padded to so many words. */
const VECTOR_WORDS = 128;
/** So many of these are 32 groups that are handed over packed. */
const GROUP_BLOCKS = 3;
/** Workgroup memory beside what is planned: a norm's squares and factor, attention's totals. */
const FIXED_BYTES = 1024;
/** Stages: the rows of gate and up are multiplied in pairs. */
const [QKV, GATE_UP, DOWN] = [0, 2, 3];

/** Most workgroups that have a part in layers: one on each multiprocessor, and no more than groups of silu(gate) up. */
export function mostWorkgroups({ multiprocessors }: DeviceProfile, { intermediate }: LayerShape): number {
  return Math.min(multiprocessors, intermediate / 16);
}

/**
 * Splits of a sequence that isn't short (decode_attention.ts): the more, the more workgroups have a part, each of one
 * head; but parts beyond the workgroups would be a second turn.
 */
export function longSplits(profile: DeviceProfile, shape: LayerShape): number {
  const workgroups = evenWorkgroups({ ...profile, multiprocessors: mostWorkgroups(profile, shape) });
  return splitsWithin(profile, shape.attention.heads, workgroups);
}

/**
 * Workgroups that take a head together where its sequence isn't split, each some groups of channels of its values: as
 * many as all heads leave room for, but a software adapter is busy with one.
 */
export function headShares(profile: DeviceProfile, { attention: { heads, headSize } }: LayerShape): 1 | 2 | 4 {
  const fits = (shares: number) => splitsWithin(profile, heads, profile.multiprocessors) >= shares;
  return ([4, 2] as const).find((shares) => headSize % (16 * shares) === 0 && fits(shares)) ?? 1;
}

/** First words of what is handed over. */
export function relayLayout(profile: DeviceProfile, shape: LayerShape) {
  const { hidden, intermediate, attention: { heads, keyValueHeads, headSize } } = shape;
  const vector = (words: number) => Math.ceil(words / VECTOR_WORDS) * VECTOR_WORDS;
  const groups = (channels: number) => GROUP_BLOCKS * VECTOR_WORDS * Math.ceil(channels / 16 / 32);
  const splits = longSplits(profile, shape);
  const qkv = CONTROL_WORDS;
  const sums = qkv + vector((heads + 2 * keyValueHeads) * headSize);
  const sumsStride = vector(heads * headSize);
  const pairs = sums + splits * sumsStride;
  const mixed = pairs + vector(2 * splits * heads);
  const middle = mixed + groups(heads * headSize);
  const inner = middle + groups(hidden);
  const rest = inner + groups(intermediate);
  const stream = rest + vector(intermediate);
  return { qkv, sums, sumsStride, pairs, mixed, middle, inner, rest, stream, end: stream + groups(hidden) };
}

/** The product of a stage. */
interface Product {
  readonly rows: number;
  readonly halfBlocks: number;
  readonly rowsPerOutput: number;
  /** Groups of its outputs that are handed over packed: the first ones. */
  readonly packedGroups: number;
}

/** Steps of 4 rows that a workgroup takes of a product, of which it hands over so many groups packed. */
function workgroupSteps({ rows, rowsPerOutput, packedGroups }: Product, workgroups: number): number {
  const restSteps = Math.ceil((rows / rowsPerOutput - 16 * packedGroups) / STEP_ROWS);
  return rowsPerOutput * (4 * Math.ceil(packedGroups / workgroups) + Math.ceil(restSteps / workgroups));
}

/** How a workgroup's threads share its rows. */
interface Spread {
  /** Lanes of a team: a subgroup's, or half of them. */
  readonly lanes: number;
  /** Teams of a workgroup. */
  readonly teams: number;
  /** Columns of down that are taken at once. */
  readonly partColumns: number;
}

/** Numbers of subgroups to choose from. */
const SUBGROUPS = [12, 13, 14, 15, 16];
/** So few are enough for a small model, where each product takes a single round: more would only walk along. */
const FEW_SUBGROUPS = 8;
/** Subgroups that take turns on a scheduler of a multiprocessor. */
const SCHEDULERS = 4;
/** What a turn of all teams takes on an H200, by bits of activations and subgroups of the scheduler that has the most. */
const TURN_US = { 16: [0, 0.5, 0.8, 1.2, 1.75], 8: [0, 0.42, 0.67, 1, 1.29] } as const;
/** What a further part of down takes beside its turns: its input, and first loads that nothing hides. */
const PART_US = 2.5;

/** All ways to try: teams are whole or half subgroups, of the 4 lanes that sum a step's rows or more. */
function spreadsOf(subgroup: number, down: Product): Spread[] {
  return (subgroup >= 2 * STEP_ROWS ? [1, 2] : [1]).flatMap((halves) =>
    [FEW_SUBGROUPS, ...SUBGROUPS].flatMap((subgroups) => {
      const lanes = subgroup / halves;
      const all = Math.ceil(down.halfBlocks / lanes);
      return Array.from({ length: all }, (_, i) => ({ lanes, teams: subgroups * halves, partColumns: all - i }));
    })
  );
}

/** Columns of a product that are multiplied at once. */
function columnsOf({ halfBlocks }: Product, stage: number, { lanes, partColumns }: Spread): number {
  return stage === DOWN ? partColumns : Math.ceil(halfBlocks / lanes);
}

/** Half blocks of a row, of f16 weights too: what a lane takes of a step's columns. */
function halfBlocksOf(matrix: LayerMatrix): number {
  return "halfBlocks" in matrix ? matrix.halfBlocks : Math.ceil(matrix.chunks / 8);
}

/** Rounds of steps of a product. */
function roundsOf(product: Product, stage: number, spread: Spread, workgroups: number): number {
  const most = columnsOf(product, stage, spread);
  const steps = workgroupSteps(product, workgroups);
  let rounds = 0;
  for (let left = Math.ceil(product.halfBlocks / spread.lanes); left > 0; left -= most) {
    rounds += Math.ceil(steps / Math.floor(spread.teams / Math.min(most, left)));
  }
  return rounds;
}

/** Microseconds that the steps of all products would take on an H200. */
function costOf(
  products: readonly Product[],
  spread: Spread,
  subgroup: number,
  workgroups: number,
  activationBits: ActivationBits = 16,
): number {
  const { lanes, teams, partColumns } = spread;
  const rounds = products.reduce((sum, product, stage) => sum + roundsOf(product, stage, spread, workgroups), 0);
  const subgroups = teams * lanes / subgroup;
  if (subgroups === FEW_SUBGROUPS && rounds > products.length) return Infinity;
  const parts = Math.ceil(Math.ceil(products[DOWN].halfBlocks / lanes) / partColumns);
  return rounds * TURN_US[activationBits][Math.ceil(subgroups / SCHEDULERS)] + (parts - 1) * PART_US;
}

/**
 * Where whole groups of gate and up would take more rounds, as many as all workgroups have alike are packed, and the
 * rest is shared out in steps.
 */
function splitGateUp(products: readonly Product[], spread: Spread, workgroups: number): readonly Product[] {
  const whole = products[GATE_UP];
  const split = { ...whole, packedGroups: Math.floor(whole.packedGroups / workgroups) * workgroups };
  const rounds = (product: Product) => roundsOf(product, GATE_UP, spread, workgroups);
  return rounds(split) < rounds(whole) ? products.with(GATE_UP, split) : products;
}

/** What a workgroup takes, and the workgroup memory that it needs for that. */
export interface WorkgroupShare {
  /** Lanes of a team: a subgroup's, or half of them. */
  readonly lanes: number;
  /** Threads: a whole number of subgroups. */
  readonly threads: number;
  /** Most columns of down that are multiplied at once; 0 where cells have room for all. */
  readonly partColumns: number;
  /** Groups of activations that there is room for. */
  readonly cells: number;
  /** Partial sums of rows. */
  readonly partials: number;
  /** Whether any matrix has outliers. */
  readonly hasOutliers: boolean;
  /** Groups of gate and up's outputs that are handed over packed. */
  readonly innerGroups: number;
  /** Quarters of groups of the residual stream. */
  readonly streamQuarters: number;
  /** Whether each product takes a single round, of few subgroups. */
  readonly isSmall: boolean;
}

/** A way to share the rows out, or nothing where workgroup memory has no room for it. */
function shareOf(
  { workgroupBytes, workgroupThreads }: DeviceProfile,
  { attention, activationBits = 16 }: LayerShape,
  products: readonly Product[],
  spread: Spread,
  subgroup: number,
  workgroups: number,
  hasOutliers: boolean,
): WorkgroupShare | undefined {
  const { lanes, teams, partColumns } = spread;
  const threads = teams * lanes;
  const columns = products.map((product, stage) => columnsOf(product, stage, spread));
  const most = Math.max(...columns);
  // Attention merges its sums in the high bytes of the cells.
  const rowLanes = attentionRowLanes(attention);
  const mergedVectors = ((threads / Math.min(subgroup, 4 * rowLanes)) * rowLanes * 8) / 4;
  const cells = Math.max(most * lanes * LANE_GROUPS, mergedVectors);
  const sums = columns.map((count) => hasOutliers ? count + 1 : count);
  const partials = Math.max(...products.map((each, i) => sums[i] * workgroupSteps(each, workgroups) * STEP_ROWS));
  const streamQuarters = 4 * Math.ceil(products[DOWN].packedGroups / workgroups);
  const bytes = cells * cellBytes(activationBits) + 4 * partials + 32 * streamQuarters + 4 * 3 * attention.headSize +
    FIXED_BYTES;
  if (bytes > workgroupBytes || threads > workgroupThreads || most > teams) return;
  const isPart = partColumns * lanes < products[DOWN].halfBlocks;
  // Other stages than down have one part.
  if (isPart && partColumns < most) return;
  return {
    lanes,
    threads,
    partColumns: isPart ? partColumns : 0,
    cells,
    partials,
    hasOutliers,
    innerGroups: products[GATE_UP].packedGroups,
    streamQuarters,
    isSmall: threads === FEW_SUBGROUPS * subgroup,
  };
}

/**
 * Shares the rows out among so many workgroups, or returns nothing where workgroup memory has no room for a share. Of
 * what fits it takes what should be fastest.
 */
export function planShare(
  profile: DeviceProfile,
  shape: LayerShape,
  arenas: readonly LayerArena[],
  { lanes: subgroup }: Team,
  workgroups: number,
): WorkgroupShare | undefined {
  const whole = arenas[0].layers[0].map((matrix, stage) => ({
    rows: matrix.rows,
    halfBlocks: halfBlocksOf(matrix),
    rowsPerOutput: stage === GATE_UP ? 2 : 1,
    packedGroups: stage === QKV ? 0 : matrix.rows / (stage === GATE_UP ? 32 : 16),
  }));
  const hasOutliers = arenas.some(({ layers }) =>
    layers.flat().some(({ slabs: [slab] }) => "slotStart" in slab && slab.slotStart > 0)
  );
  let best: WorkgroupShare | undefined;
  let least = Infinity;
  for (const spread of spreadsOf(subgroup, whole[DOWN])) {
    const products = splitGateUp(whole, spread, workgroups);
    const cost = costOf(products, spread, subgroup, workgroups, shape.activationBits);
    const share = cost < least && shareOf(profile, shape, products, spread, subgroup, workgroups, hasOutliers);
    if (share) [best, least] = [share, cost];
  }
  return best;
}
