/**
 * Sizes of decode_layer.wgsl: what workgroups hand over, and what each of them takes of every product.
 *
 * @module
 */
import { attentionRowLanes, splitsWithin } from "../attention/decode_attention.ts";
import { LANE_GROUPS } from "../product/fused_gemv.ts";
import { type DeviceProfile, evenWorkgroups } from "../gpu/device_profile.ts";
import type { LayerShape } from "./layer_run.ts";
import { STEP_ROWS } from "../matrix/packed_matrix.ts";
import type { LayerArena } from "../matrix/share_planes.ts";
import { CONTROL_WORDS } from "./co_resident.ts";
import type { Team } from "../gpu/team.ts";

/** Vectors of the relay are padded to so many words. */
const VECTOR_WORDS = 128;
/** Workgroup memory beside what is planned: a norm's squares and factor, attention's totals. */
const FIXED_BYTES = 1024;
/** The stage whose rows are multiplied in pairs, gate and up. */
const GATE_UP = 2;
/** Numbers of subgroups to choose from. */
const SUBGROUPS = [12, 13, 14, 15, 16];
/** Subgroups that take turns on a scheduler of a multiprocessor. */
const SCHEDULERS = 4;
/** What a turn of all teams takes on an H200, by the subgroups of the scheduler that has the most. */
const TURN_US = [0, 0.5, 0.8, 1.2, 1.75];
/** What a further part of down takes beside its turns: its input, and first loads that nothing hides. */
const PART_US = 2.5;

/**
 * Splits of sequences that are short, middling and longer (decode_attention.ts): the more, the more workgroups have a
 * part, each of one head. With one, nothing need be combined.
 */
export function splitTiers(profile: DeviceProfile, { attention }: LayerShape): [number, number, number] {
  const splits = (workgroups: number) => splitsWithin(profile, attention.heads, workgroups);
  return [1, splits(evenWorkgroups(profile) / 2), splits(profile.multiprocessors)];
}

/** First words of what is handed over. */
export function relayLayout(profile: DeviceProfile, shape: LayerShape) {
  const { hidden, intermediate, attention: { heads, keyValueHeads, headSize } } = shape;
  const vector = (words: number) => Math.ceil(words / VECTOR_WORDS) * VECTOR_WORDS;
  const splits = Math.max(...splitTiers(profile, shape));
  const qkv = CONTROL_WORDS;
  const sums = qkv + vector((heads + 2 * keyValueHeads) * headSize);
  const sumsStride = vector(heads * headSize);
  const pairs = sums + splits * sumsStride;
  const mixed = pairs + vector(2 * splits * heads);
  const middle = mixed + vector(heads * headSize);
  const inner = middle + vector(hidden);
  const stream = inner + vector(intermediate);
  return { qkv, sums, sumsStride, pairs, mixed, middle, inner, stream, end: stream + vector(hidden) };
}

/** The product of a stage, as a workgroup takes it. */
interface Product {
  /** Half blocks of a row. */
  readonly halfBlocks: number;
  /** Steps of 4 rows. */
  readonly steps: number;
  /** Rows of its output. */
  readonly outputs: number;
}

/** What a workgroup takes of each stage; the last is down. */
function productsOf([{ layers: [first] }]: readonly LayerArena[], workgroups: number): Product[] {
  return first.map(({ rows, halfBlocks }, stage) => {
    const runs = stage === GATE_UP ? 2 : 1;
    const runSteps = Math.ceil(Math.ceil(rows / runs / STEP_ROWS) / workgroups);
    return { halfBlocks, steps: runs * runSteps, outputs: runSteps * STEP_ROWS };
  });
}

/** How a workgroup's threads share its rows. */
interface Spread {
  /** Lanes of a team. */
  readonly lanes: number;
  /** Teams of a workgroup. */
  readonly teams: number;
  /** Columns of down that are taken at once. */
  readonly partColumns: number;
}

/** All ways to try: teams are whole or half subgroups, of which a workgroup has 12 to 16. */
function spreadsOf(subgroup: number, down: Product): Spread[] {
  return [1, 2].flatMap((halves) =>
    SUBGROUPS.flatMap((subgroups) => {
      const lanes = subgroup / halves;
      const all = Math.ceil(down.halfBlocks / lanes);
      return Array.from({ length: all }, (_, i) => ({ lanes, teams: subgroups * halves, partColumns: all - i }));
    })
  );
}

/** Columns of each stage that are multiplied at once. */
function columnsOf(products: readonly Product[], { lanes, partColumns }: Spread): number[] {
  return [...products.slice(0, -1).map(({ halfBlocks }) => Math.ceil(halfBlocks / lanes)), partColumns];
}

/** Microseconds that the steps of all products would take on an H200. */
function costOf(products: readonly Product[], spread: Spread, subgroup: number): number {
  const { lanes, teams } = spread;
  const most = columnsOf(products, spread);
  let [turns, parts] = [0, 0];
  for (const [stage, { halfBlocks, steps }] of products.entries()) {
    for (let left = Math.ceil(halfBlocks / lanes); left > 0; left -= most[stage]) {
      turns += Math.ceil(steps / Math.floor(teams / Math.min(most[stage], left)));
      parts++;
    }
  }
  const turnUs = TURN_US[Math.ceil(teams * lanes / subgroup / SCHEDULERS)];
  return turns * turnUs + (parts - products.length) * PART_US;
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
}

/**
 * Shares the rows out among so many workgroups, or returns nothing where workgroup memory has no room for a share. Of
 * what fits it takes what should be fastest.
 */
export function planShare(
  { workgroupBytes, workgroupThreads }: DeviceProfile,
  { attention }: LayerShape,
  arenas: readonly LayerArena[],
  { lanes: subgroup }: Team,
  workgroups: number,
): WorkgroupShare | undefined {
  const rowLanes = attentionRowLanes(attention);
  const mergeLanes = Math.min(subgroup, 4 * rowLanes);
  const products = productsOf(arenas, workgroups);
  const down = products[products.length - 1];
  const hasOutliers = arenas.some(({ layers }) => layers.flat().some(({ slabs: [slab] }) => slab.slotStart > 0));
  const fit = (spread: Spread): WorkgroupShare | undefined => {
    const { lanes, teams, partColumns } = spread;
    const threads = teams * lanes;
    const columns = columnsOf(products, spread);
    const most = Math.max(...columns);
    // Attention merges its sums in the high bytes of the cells.
    const mergedVectors = ((threads / mergeLanes) * rowLanes * 8) / 4;
    const cells = Math.max(most * lanes * LANE_GROUPS, mergedVectors);
    const sums = columns.map((count) => hasOutliers ? count + 1 : count);
    const partials = Math.max(...products.map(({ steps }, i) => sums[i] * steps * STEP_ROWS));
    const bytes = cells * 40 + 4 * partials + 4 * 3 * attention.headSize + FIXED_BYTES;
    if (bytes > workgroupBytes || threads > workgroupThreads || most > teams) return;
    // A thread keeps the sum of one row from part to part; other stages have one part.
    const isPart = partColumns * lanes < down.halfBlocks;
    if (isPart && (down.outputs > threads || partColumns < most)) return;
    return { lanes, threads, partColumns: isPart ? partColumns : 0, cells, partials, hasOutliers };
  };
  let best: WorkgroupShare | undefined;
  let least = Infinity;
  for (const spread of spreadsOf(subgroup, down)) {
    const cost = costOf(products, spread, subgroup);
    const share = cost < least && fit(spread);
    if (share) [best, least] = [share, cost];
  }
  return best;
}
