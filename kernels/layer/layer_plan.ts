/**
 * Sizes of decode_layer.wgsl: what workgroups hand over, and what each of them takes of every product.
 *
 * @module
 */
import { attentionRowLanes, queriesOf, splitsWithin } from "../attention/decode_attention.ts";
import { LANE_GROUPS } from "../product/fused_gemv.ts";
import { type DeviceProfile, evenWorkgroups } from "../gpu/device_profile.ts";
import type { LayerShape } from "./layer_run.ts";
import { STEP_ROWS } from "../matrix/packed_matrix.ts";
import type { LayerArena } from "../matrix/share_planes.ts";
import { CONTROL_WORDS } from "./co_resident.ts";
import type { Team } from "../gpu/team.ts";

/** Vectors of the relay are padded to so many words. */
const VECTOR_WORDS = 128;
/** So many of these are 32 groups that are handed over packed. */
const GROUP_BLOCKS = 3;
/** Workgroup memory beside what is planned: a norm's squares and factor, attention's totals. */
const FIXED_BYTES = 1024;
/** The stage whose rows are multiplied in pairs, gate and up. */
const GATE_UP = 2;
const QKV = 0;
const DOWN = 3;

/**
 * Splits of sequences that are short, middling and longer (decode_attention.ts): the more, the more workgroups have a
 * part. A short one has two at most: combining more takes longer than they save.
 */
export function splitTiers(profile: DeviceProfile, { attention }: LayerShape): [number, number, number] {
  const splits = (workgroups: number) => splitsWithin(profile, attention, workgroups);
  const middle = splits(evenWorkgroups(profile) / 2);
  return [Math.min(2, middle), middle, splits(profile.multiprocessors)];
}

/** First words of what is handed over. */
export function relayLayout(profile: DeviceProfile, shape: LayerShape) {
  const { hidden, intermediate, attention: { heads, keyValueHeads, headSize } } = shape;
  const vector = (words: number) => Math.ceil(words / VECTOR_WORDS) * VECTOR_WORDS;
  const groups = (channels: number) => GROUP_BLOCKS * VECTOR_WORDS * Math.ceil(channels / 16 / 32);
  const splits = Math.max(...splitTiers(profile, shape));
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

/** Rounds of steps of a product. */
function roundsOf(product: Product, teams: number, team: Team, workgroups: number): number {
  return Math.ceil(
    workgroupSteps(product, workgroups) / Math.floor(teams / Math.ceil(product.halfBlocks / team.lanes)),
  );
}

/** So few teams are enough for a small model, where each product takes a single round: more would only walk along. */
const FEW_TEAMS = 8;

/** Teams of a workgroup: so many that the rounds of all products together take the fewest turns of a team. */
function chooseTeams(products: readonly Product[], team: Team, workgroups: number): number {
  const cost = (teams: number) =>
    splitGateUp(products, teams, team, workgroups)
      .reduce((sum, product) => sum + teams * roundsOf(product, teams, team, workgroups), 0);
  const rounds = (teams: number) => cost(teams) / teams;
  if (rounds(FEW_TEAMS) === products.length) return FEW_TEAMS;
  return [12, 13, 14, 15, 16].reduce((best, teams) => cost(teams) < cost(best) ? teams : best);
}

/**
 * Where whole groups of gate and up would take more rounds, as many as all workgroups have alike are packed, and the rest
 * is shared out in steps.
 */
function splitGateUp(products: readonly Product[], teams: number, team: Team, workgroups: number): readonly Product[] {
  const whole = products[GATE_UP];
  const split = { ...whole, packedGroups: Math.floor(whole.packedGroups / workgroups) * workgroups };
  const rounds = (product: Product) => roundsOf(product, teams, team, workgroups);
  return rounds(split) < rounds(whole) ? products.with(GATE_UP, split) : products;
}

/** What a workgroup takes, and the workgroup memory that it needs for that. */
export interface WorkgroupShare {
  /** Threads: a whole number of teams. */
  readonly threads: number;
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
}

/** Shares the rows out among so many workgroups, or returns nothing where workgroup memory has no room for a share. */
export function planShare(
  { workgroupBytes, workgroupThreads }: DeviceProfile,
  { attention }: LayerShape,
  arenas: readonly LayerArena[],
  team: Team,
  workgroups: number,
): WorkgroupShare | undefined {
  const queries = queriesOf(attention);
  const rowLanes = attentionRowLanes(attention);
  const whole = arenas[0].layers[0].map(({ rows, halfBlocks }, stage) => ({
    rows,
    halfBlocks,
    rowsPerOutput: stage === GATE_UP ? 2 : 1,
    packedGroups: stage === QKV ? 0 : rows / (stage === GATE_UP ? 32 : 16),
  }));
  const columns = whole.map(({ halfBlocks }) => Math.ceil(halfBlocks / team.lanes));
  const teams = chooseTeams(whole, team, workgroups);
  const products = splitGateUp(whole, teams, team, workgroups);
  const steps = products.map((product) => workgroupSteps(product, workgroups));
  const threads = teams * team.lanes;
  const mergeLanes = Math.min(team.lanes, 4 * rowLanes);
  // Attention merges its sums in the cells: those of one query fill high bytes, those of four low bytes too.
  const mergedVectors = ((threads / mergeLanes) * rowLanes * 8 * queries) / 4;
  const cells = Math.max(Math.max(...columns) * team.lanes * LANE_GROUPS, mergedVectors / (queries === 1 ? 1 : 2));
  const hasOutliers = arenas.some(({ layers }) => layers.flat().some(({ slabs: [slab] }) => slab.slotStart > 0));
  const parts = columns.map((count) => hasOutliers ? count + 1 : count);
  const partials = Math.max(...steps.map((count, i) => parts[i] * count * STEP_ROWS));
  const streamQuarters = 4 * Math.ceil(products[DOWN].packedGroups / workgroups);
  const bytes = cells * 40 + 4 * partials + 32 * streamQuarters + 4 * (queries + 2) * attention.headSize + FIXED_BYTES;
  if (
    bytes > workgroupBytes || threads > workgroupThreads ||
    Math.max(...columns) > teams
  ) return undefined;
  return { threads, cells, partials, hasOutliers, innerGroups: products[GATE_UP].packedGroups, streamQuarters };
}
