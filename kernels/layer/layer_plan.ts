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
/** Workgroup memory beside what is planned: a norm's squares and factor, attention's totals. */
const FIXED_BYTES = 1024;
/** The stage whose rows are multiplied in pairs, gate and up. */
const GATE_UP = 2;
/** Numbers of teams to choose from. */
const TEAMS = [12, 13, 14, 15, 16];
/** What a further part of down costs beside its steps, in turns of one team: its input and first loads, about 1.7 us. */
const PART_TURNS = 16;

/**
 * Splits of sequences that are short, middling and longer (decode_attention.ts): the more, the more workgroups have a
 * part. With one, nothing need be combined.
 */
export function splitTiers(profile: DeviceProfile, { attention }: LayerShape): [number, number, number] {
  const splits = (workgroups: number) => splitsWithin(profile, attention, workgroups);
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
  /** Teams side by side that cover a row. */
  readonly columns: number;
  /** Steps of 4 rows. */
  readonly steps: number;
  /** Rows of its output. */
  readonly outputs: number;
}

/** What a workgroup takes of each stage. */
function productsOf([{ layers: [first] }]: readonly LayerArena[], team: Team, workgroups: number): Product[] {
  return first.map(({ rows, halfBlocks }, stage) => {
    const runs = stage === GATE_UP ? 2 : 1;
    const runSteps = Math.ceil(Math.ceil(rows / runs / STEP_ROWS) / workgroups);
    return { columns: Math.ceil(halfBlocks / team.lanes), steps: runs * runSteps, outputs: runSteps * STEP_ROWS };
  });
}

/** What a workgroup takes, and the workgroup memory that it needs for that. */
export interface WorkgroupShare {
  /** Threads: a whole number of teams. */
  readonly threads: number;
  /** Most columns of down that are multiplied at once, where cells have no room for all. */
  readonly partColumns?: number;
  /** Groups of activations that there is room for. */
  readonly cells: number;
  /** Partial sums of rows. */
  readonly partials: number;
  /** Whether any matrix has outliers. */
  readonly hasOutliers: boolean;
}

/**
 * Shares the rows out among so many workgroups, or returns nothing where workgroup memory has no room for a share. Of
 * what fits it takes the teams of a workgroup, and the parts of down's columns, with which all teams have the fewest
 * turns.
 */
export function planShare(
  { workgroupBytes, workgroupThreads }: DeviceProfile,
  { attention }: LayerShape,
  arenas: readonly LayerArena[],
  team: Team,
  workgroups: number,
): WorkgroupShare | undefined {
  const queries = queriesOf(attention);
  const rowLanes = attentionRowLanes(attention);
  const mergeLanes = Math.min(team.lanes, 4 * rowLanes);
  const products = productsOf(arenas, team, workgroups);
  const [down, ...others] = products.toReversed();
  const otherColumns = Math.max(...others.map(({ columns }) => columns));
  const hasOutliers = arenas.some(({ layers }) => layers.flat().some(({ slabs: [slab] }) => slab.slotStart > 0));
  const plan = (teams: number, parts: number): WorkgroupShare & { readonly cost: number } | undefined => {
    const threads = teams * team.lanes;
    const columns = Math.ceil(down.columns / parts);
    const most = Math.max(columns, otherColumns);
    // Attention merges its sums in the cells: those of one query fill high bytes, those of four all that a cell has.
    const mergedVectors = ((threads / mergeLanes) * rowLanes * 8 * queries) / 4;
    const cells = Math.max(most * team.lanes * LANE_GROUPS, Math.ceil(mergedVectors / (queries === 1 ? 1 : 2.5)));
    const sums = (product: Product, width: number) => (width + (hasOutliers ? 1 : 0)) * product.steps * STEP_ROWS;
    const partials = Math.max(sums(down, columns), ...others.map((product) => sums(product, product.columns)));
    const bytes = cells * 40 + 4 * partials + 4 * (queries + 2) * attention.headSize + FIXED_BYTES;
    if (bytes > workgroupBytes || threads > workgroupThreads || most > teams) return;
    if (parts === 1) return { threads, cells, partials, hasOutliers, cost: teams * turnsOf(products, teams, columns) };
    // A thread keeps the sum of one row from part to part, and other stages have one part.
    if (down.outputs > threads || columns < otherColumns) return;
    const cost = teams * turnsOf(products, teams, columns) + (parts - 1) * PART_TURNS;
    return { threads, partColumns: columns, cells, partials, hasOutliers, cost };
  };
  const plans = Array.from({ length: down.columns }, (_, i) => TEAMS.map((teams) => plan(teams, i + 1))).flat();
  return plans.reduce((best, next) => next && !(best && best.cost <= next.cost) ? next : best, undefined);
}

/** Turns that each team takes for all products, down's by so many columns at once. */
function turnsOf(products: readonly Product[], teams: number, partColumns: number): number {
  return products.reduce((sum, { columns, steps }, stage) => {
    const most = stage === products.length - 1 ? partColumns : columns;
    let turns = 0;
    for (let first = 0; first < columns; first += most) {
      turns += Math.ceil(steps / Math.floor(teams / Math.min(most, columns - first)));
    }
    return sum + turns;
  }, 0);
}
