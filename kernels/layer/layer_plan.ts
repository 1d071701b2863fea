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

/** The product of a stage. */
interface Product {
  readonly rows: number;
  readonly halfBlocks: number;
  readonly rowsPerOutput: number;
}

/** Steps of 4 rows that a workgroup takes of a product. */
function workgroupSteps({ rows, rowsPerOutput }: Product, workgroups: number): number {
  return rowsPerOutput * Math.ceil(Math.ceil(rows / rowsPerOutput / STEP_ROWS) / workgroups);
}

/** Teams of a workgroup: so many that the rounds of all products together take the fewest turns of a team. */
function chooseTeams(products: readonly Product[], team: Team, workgroups: number): number {
  const cost = (teams: number) =>
    products.reduce((sum, product) => {
      const rowTeams = Math.floor(teams / Math.ceil(product.halfBlocks / team.lanes));
      return sum + teams * Math.ceil(workgroupSteps(product, workgroups) / rowTeams);
    }, 0);
  return [12, 13, 14, 15, 16].reduce((best, teams) => cost(teams) < cost(best) ? teams : best);
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
  const products = arenas[0].layers[0].map(({ rows, halfBlocks }, stage) => ({
    rows,
    halfBlocks,
    rowsPerOutput: stage === GATE_UP ? 2 : 1,
  }));
  const columns = products.map(({ halfBlocks }) => Math.ceil(halfBlocks / team.lanes));
  const steps = products.map((product) => workgroupSteps(product, workgroups));
  const teams = chooseTeams(products, team, workgroups);
  const threads = teams * team.lanes;
  const mergeLanes = Math.min(team.lanes, 4 * rowLanes);
  // Attention merges its sums in the cells: those of one query fill high bytes, those of four low bytes too.
  const mergedVectors = ((threads / mergeLanes) * rowLanes * 8 * queries) / 4;
  const cells = Math.max(Math.max(...columns) * team.lanes * LANE_GROUPS, mergedVectors / (queries === 1 ? 1 : 2));
  const hasOutliers = arenas.some(({ layers }) => layers.flat().some(({ slabs: [slab] }) => slab.slotStart > 0));
  const parts = columns.map((count) => hasOutliers ? count + 1 : count);
  const partials = Math.max(...steps.map((count, i) => parts[i] * count * STEP_ROWS));
  const bytes = cells * 40 + 4 * partials + 4 * (queries + 2) * attention.headSize + FIXED_BYTES;
  if (
    bytes > workgroupBytes || threads > workgroupThreads ||
    Math.max(...columns) > teams
  ) return undefined;
  return { threads, cells, partials, hasOutliers };
}
