// Launcher of the fused matrix-vector kernel, asynchronous or in order.
import type { DeviceProfile } from "../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import {
  checkOutput,
  type Epilogue,
  type GemvInput,
  inputBuffers,
  inputConstants,
  outputConstant,
  rowsPerOutput,
} from "./prologue_epilogue.ts";
import { chooseTeam, type Team } from "../gpu/team.ts";
import { LANE_SLOTS, type PackedMatrix, type PackedSlab, planeBuffers, STEP_ROWS } from "../matrix/packed_matrix.ts";
import { joinShader } from "../gpu/shader.ts";
import { type ActivationBits, cellBytes } from "./pack_activations.ts";
import * as wgsl from "./wgsl.ts";

/** What {@linkcode fusedGemv} accepts beside its buffers. */
export interface FusedGemvOptions {
  /** Tokens of a small batch, for which the same weights are multiplied. Default: 1. */
  readonly tokens?: number;
  /** Ask for the words of a step when they are needed, and multiply nothing while they come. Default: false. */
  readonly synchronous?: boolean;
  /** Workgroups to spread the rows over; best is one for each multiprocessor, the default. */
  readonly workgroups?: number;
  /**
   * Most teams (subgroups) of a workgroup; more hide more latency, fewer have more registers. Default: 16 where these
   * take all steps of a workgroup at once, else 12; synchronous: 20.
   */
  readonly teams?: number;
  /** Parts of the work to leave out when measuring their cost: the override `without` of product/parts/decode.wgsl. Default: 0. */
  readonly without?: number;
  /** Bits of an activation, of packed ones those that they were packed in. Default: 16. */
  readonly activationBits?: ActivationBits;
}

/** How the rows and columns of a slab are spread over workgroups and teams. */
export interface GemvPlan {
  /** Columns of a dispatch; one entry a dispatch. */
  readonly columns: readonly number[];
  /** Teams of a workgroup that work on different rows of the same column. */
  readonly rowTeams: number;
  /** Steps of 4 rows that a workgroup walks. */
  readonly workgroupSteps: number;
  /** Workgroups of each dispatch. */
  readonly workgroups: number;
}

/** Groups of activations that a lane multiplies. */
export const LANE_GROUPS = 4;
/** Workgroup memory of a workgroup whatever its size: a norm's factor. */
const FIXED_BYTES = 16;
/** Steps of a workgroup that the choice of columns leaves room for. */
const LEAST_STEPS = 64;

/**
 * Dispatches that compute y from W x: one where the matrix is one slab and a row fits in workgroup memory.
 *
 * @param input x, or what it is made of, for `matrix.channels` channels
 * @param output where the product goes, and how
 * @throws {TypeError} for a silu_product whose gate and up rows don't pair or lie in different slabs
 * @throws {RangeError} for a silu_product whose rows don't fit in workgroup memory
 */
export async function fusedGemv(
  gpu: Gpu,
  matrix: PackedMatrix,
  input: GemvInput,
  output: Epilogue,
  options: FusedGemvOptions = {},
): Promise<Dispatch[]> {
  checkOutput(output, matrix.rows, matrix.slabs.length);
  const { synchronous, tokens = 1, without = 0, activationBits = 16 } = options;
  const team = chooseTeam(gpu.profile);
  const shader = input.kind === "packed"
    ? joinShader(wgsl, "fused_gemv", "fill_packed", team.exchange)
    : joinShader(wgsl, "fused_gemv", "fill_values", "one_input", team.exchange);
  const perOutput = rowsPerOutput(output);
  const tokenRows = matrix.rows / perOutput;
  const y = { buffer: output.y.buffer, offset: output.y.offset ?? 0, size: tokens * tokenRows * 4 };
  const dispatches: Dispatch[] = [];
  for (const slab of matrix.slabs) {
    const plan = planGemv(gpu.profile, team, slab.rows, matrix.halfBlocks, { ...options, rowsPerOutput: perOutput });
    if (output.kind === "silu_product" && plan.columns.length > 1) {
      throw new RangeError(`rows of ${matrix.channels} channels take ${plan.columns.length} dispatches, must take one`);
    }
    for (const part of plan.columns.keys()) {
      const dispatch = await gpu.makeDispatch(shader, {
        constants: {
          ...fusedConstants(matrix, slab, team, plan, part),
          ...(input.kind === "packed" ? {} : inputConstants(input, matrix.channels)),
          output_kind: outputConstant(part > 0 ? { ...output, kind: "add" } : output),
          token_rows: tokenRows,
          y_row: slab.firstRow,
          in_order: synchronous ? 1 : 0,
          without,
          activation_bits: activationBits,
        },
        buffers: {
          ...planeBuffers(slab),
          y,
          ...(input.kind === "packed" ? { activations: input.activations } : inputBuffers(input)),
        },
        workgroups: [plan.workgroups, 1, tokens],
      });
      dispatches.push(dispatch);
    }
  }
  return dispatches;
}

/** Constants of the dispatch that takes part `part` of the columns. */
function fusedConstants(
  matrix: PackedMatrix,
  slab: PackedSlab,
  team: Team,
  plan: GemvPlan,
  part: number,
): Record<string, number> {
  const columns = plan.columns[part];
  return {
    rows: slab.rows,
    half_blocks: matrix.halfBlocks,
    refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
    team: team.lanes,
    columns,
    first_column: part * plan.columns[0],
    row_teams: plan.rowTeams,
    workgroup_steps: plan.workgroupSteps,
    workgroup_size: team.lanes * columns * plan.rowTeams,
    cell_count: team.lanes * columns * LANE_GROUPS,
    partial_count: (columns + 1) * plan.workgroupSteps * STEP_ROWS,
    slot_start: slab.slotStart / LANE_SLOTS,
    slot_bits: Math.log2(slab.slots),
    outlier_residuals: slab.hasBeyond ? slab.outlierResiduals : 0,
  };
}

/** Whether {@linkcode fusedGemv} makes silu(gate) up of a matrix with the rows of both. */
export function takesGemvPairs({ profile }: Gpu, { slabs, halfBlocks }: PackedMatrix): boolean {
  const plan = (rows: number) => planGemv(profile, chooseTeam(profile), rows, halfBlocks, { rowsPerOutput: 2 });
  return slabs.every(({ rows }) => plan(rows).columns.length === 1);
}

/**
 * Spreads a matrix over workgroups within the device's limits. That workgroup memory suffices is checked here and not
 * by Deno: an array whose size is an override constant and exceeds the limit hangs NVIDIA's driver.
 *
 * @throws {RangeError} when workgroup memory doesn't hold even one column
 */
export function planGemv(
  { multiprocessors, workgroupBytes: limit, workgroupThreads }: DeviceProfile,
  team: Team,
  rows: number,
  halfBlocks: number,
  options: FusedGemvOptions & { readonly rowsPerOutput?: 1 | 2 } = {},
): GemvPlan {
  // For each lane exchange, for each team the squares of a norm.
  const teamBytes = 4 + team.lanes * team.exchangeBytes;
  const columnBytes = team.lanes * LANE_GROUPS * cellBytes(options.activationBits ?? 16);
  // Of partial sums for each column and for outliers.
  const stepBytes = (columns: number) => (columns + 1) * STEP_ROWS * 4;
  const fits = (columns: number, rowTeams: number, steps: number) =>
    columns * (columnBytes + rowTeams * teamBytes) + steps * stepBytes(columns) + FIXED_BYTES <= limit;
  // A workgroup takes as many steps of gate rows as of up rows.
  const runs = options.rowsPerOutput ?? 1;
  const runSteps = Math.ceil(rows / runs / STEP_ROWS);
  const workgroups = options.workgroups ?? multiprocessors;
  const allColumns = Math.ceil(halfBlocks / team.lanes);
  const isOneRound = runs * Math.ceil(runSteps / workgroups) * allColumns <= 16;
  // Columns that don't divide 12 teams leave too few to hide latency.
  const isUneven = Math.floor(12 / allColumns) * allColumns < 10;
  const teams = options.teams ?? (options.synchronous ? 20 : isOneRound || isUneven ? 16 : 12);
  const maxTeams = Math.min(teams, Math.floor(workgroupThreads / team.lanes));
  let dispatches = Math.ceil(allColumns / maxTeams);
  while (dispatches < allColumns && !fits(Math.ceil(allColumns / dispatches), 1, LEAST_STEPS)) dispatches++;
  const columns = Math.ceil(allColumns / dispatches);
  let maxRowTeams = Math.max(1, Math.floor(maxTeams / columns));
  while (maxRowTeams > 0 && !fits(columns, maxRowTeams, LEAST_STEPS)) maxRowTeams--;
  if (maxRowTeams === 0) {
    throw new RangeError(`workgroup memory is ${limit} bytes, must hold ${columnBytes + teamBytes} for a column`);
  }
  const room = limit - FIXED_BYTES - columns * (columnBytes + maxRowTeams * teamBytes);
  const workgroupRun = Math.min(Math.floor(room / stepBytes(columns) / runs), Math.ceil(runSteps / workgroups));
  const workgroupSteps = runs * workgroupRun;
  const rounds = Math.ceil(workgroupSteps / maxRowTeams);
  return {
    columns: Array.from({ length: dispatches }, (_, i) => Math.min(columns, allColumns - i * columns)),
    rowTeams: Math.ceil(workgroupSteps / rounds),
    workgroupSteps,
    workgroups: Math.ceil(runSteps / workgroupRun),
  };
}
