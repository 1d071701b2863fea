/**
 * Launcher of the fused matrix-vector kernels, asynchronous and synchronous.
 *
 * @module
 */
import type { Dispatch, Gpu } from "./gpu.ts";
import { chooseTeam, type Team } from "./team.ts";
import type { PackedMatrix, PackedSlab } from "./packed_matrix.ts";
import asyncCode from "./fused_gemv.wgsl" with { type: "text" };
import syncCode from "./fused_sync_gemv.wgsl" with { type: "text" };
import activationsCode from "./lib/activations.wgsl" with { type: "text" };
import decodeCode from "./lib/decode.wgsl" with { type: "text" };
import outliersCode from "./lib/outliers.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };
import refineCode from "./lib/refine.wgsl" with { type: "text" };
import rowsCode from "./lib/rows.wgsl" with { type: "text" };

/** What {@linkcode fusedGemv} accepts beside its buffers. */
export interface FusedGemvOptions {
  /** y += W x instead of y = W x. Default: false. */
  readonly addToY?: boolean;
  /** Tokens of a small batch, for which the same weights are multiplied. Default: 1. */
  readonly tokens?: number;
  /** Load, decode and multiply one after the other, with barriers between. Default: false. */
  readonly synchronous?: boolean;
  /** Workgroups to spread the rows over; best is one for each multiprocessor. Default: 132, synchronous: 264. */
  readonly workgroups?: number;
  /** Teams (subgroups) of a workgroup; more hide more latency, fewer have more registers. Default: 20. */
  readonly teams?: number;
  /** Parts of the work to leave out when measuring their cost: the override `without` of lib/decode.wgsl. Default: 0. */
  readonly without?: number;
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

const STEP_ROWS = 4;
/** Workgroup memory of a column for each lane: four groups of activations. */
const CELL_BYTES = 4 * (16 + 16 + 8);
/** Workgroup memory of a synchronous team for each lane: words, meta words and scales of four rows. */
const STAGED_BYTES = 4 * (16 + 4 + 16);
/** Steps of a workgroup that the choice of columns leaves room for. */
const LEAST_STEPS = 64;

/**
 * Dispatches that compute y = W x.
 *
 * @param activations packed activations of `matrix.channels` channels, see {@linkcode packActivations}, token by token
 * @param y f32 [tokens, rows], at an offset that is a multiple of 256 bytes
 */
export async function fusedGemv(
  gpu: Gpu,
  matrix: PackedMatrix,
  activations: GPUBuffer,
  y: GPUBufferBinding,
  options: FusedGemvOptions = {},
): Promise<Dispatch[]> {
  const dispatches: Dispatch[] = [];
  const team = chooseTeam(gpu);
  const tokens = options.tokens ?? 1;
  for (const slab of matrix.slabs) {
    const plan = planGemv(gpu, team, slab.rows, matrix.halfBlocks, options);
    let firstColumn = 0;
    for (const columns of plan.columns) {
      const addToY = options.addToY || firstColumn > 0;
      const constants = {
        ...fusedConstants(matrix, slab, team, plan, columns, firstColumn),
        add_to_y: addToY ? 1 : 0,
        without: options.without ?? 0,
      };
      const label = options.synchronous ? "fused_sync_gemv" : "fused_gemv";
      const kernel = await gpu.createKernel(label, fusedGemvCode(team, options.synchronous), constants);
      dispatches.push({
        kernel,
        bindings: gpu.bind(kernel, [
          slab.base,
          slab.refine,
          slab.meta,
          slab.meta,
          slab.tileScale,
          slab.outliers,
          activations,
          {
            buffer: y.buffer,
            offset: (y.offset ?? 0) + slab.firstRow * 4,
            size: ((tokens - 1) * matrix.rows + slab.rows) * 4,
          },
        ]),
        workgroups: [plan.workgroups, tokens, 1],
      });
      firstColumn += columns;
    }
  }
  return dispatches;
}

/** The whole shader for a kind of team. */
export function fusedGemvCode(team: Team, synchronous = false): string {
  const kernelCode = synchronous ? syncCode : asyncCode;
  const rowCode = [rowsCode, refineCode, outliersCode];
  return [kernelCode, ...rowCode, activationsCode, decodeCode, reduceCode, team.exchangeCode].join("\n");
}

function fusedConstants(
  matrix: PackedMatrix,
  slab: PackedSlab,
  team: Team,
  plan: GemvPlan,
  columns: number,
  firstColumn: number,
): Record<string, number> {
  return {
    rows: slab.rows,
    token_rows: matrix.rows,
    half_blocks: matrix.halfBlocks,
    refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
    team: team.lanes,
    columns,
    first_column: firstColumn,
    row_teams: plan.rowTeams,
    workgroup_steps: plan.workgroupSteps,
    workgroup_size: team.lanes * columns * plan.rowTeams,
    outlier_residuals: slab.outlierResiduals,
    outlier_lanes: outlierLanes(slab, team),
  };
}

/** Lanes for the outliers of a row: about as many as it has outliers. */
function outlierLanes({ rows, outlierCount }: PackedSlab, team: Team): number {
  return Math.min(team.lanes, 2 ** Math.ceil(Math.log2(Math.max(1, outlierCount / rows))));
}

/**
 * Spreads a matrix over workgroups within the device's limits. That workgroup memory suffices is checked here and not
 * by Deno: an array whose size is an override constant and exceeds the limit hangs NVIDIA's driver.
 *
 * @throws {RangeError} when workgroup memory doesn't hold even one column
 */
export function planGemv(
  gpu: Gpu,
  team: Team,
  rows: number,
  halfBlocks: number,
  options: FusedGemvOptions = {},
): GemvPlan {
  const { maxComputeWorkgroupStorageSize: limit, maxComputeInvocationsPerWorkgroup } = gpu.device.limits;
  const teamBytes = team.lanes * (team.exchangeBytes + (options.synchronous ? STAGED_BYTES : 0));
  const columnBytes = team.lanes * CELL_BYTES;
  // Of partial sums for each column and for outliers, and of outlier starts.
  const stepBytes = (columns: number) => (columns + 2) * STEP_ROWS * 4;
  const fits = (columns: number, rowTeams: number, steps: number) =>
    columns * (columnBytes + rowTeams * teamBytes) + steps * stepBytes(columns) + 16 <= limit;
  const maxTeams = Math.min(options.teams ?? 20, Math.floor(maxComputeInvocationsPerWorkgroup / team.lanes));
  const allColumns = Math.ceil(halfBlocks / team.lanes);
  let dispatches = Math.ceil(allColumns / maxTeams);
  while (dispatches < allColumns && !fits(Math.ceil(allColumns / dispatches), 1, LEAST_STEPS)) dispatches++;
  const columns = Math.ceil(allColumns / dispatches);
  let maxRowTeams = Math.max(1, Math.floor(maxTeams / columns));
  while (maxRowTeams > 0 && !fits(columns, maxRowTeams, LEAST_STEPS)) maxRowTeams--;
  if (maxRowTeams === 0) {
    throw new RangeError(`workgroup memory is ${limit} bytes, must hold ${columnBytes + teamBytes} for a column`);
  }
  const steps = Math.ceil(rows / STEP_ROWS);
  const workgroups = options.workgroups ?? (options.synchronous ? 264 : 132);
  const room = limit - 16 - columns * (columnBytes + maxRowTeams * teamBytes);
  const workgroupSteps = Math.min(Math.floor(room / stepBytes(columns)), Math.ceil(steps / workgroups));
  const rounds = Math.ceil(workgroupSteps / maxRowTeams);
  return {
    columns: Array.from({ length: dispatches }, (_, i) => Math.min(columns, allColumns - i * columns)),
    rowTeams: Math.ceil(workgroupSteps / rounds),
    workgroupSteps,
    workgroups: Math.ceil(steps / workgroupSteps),
  };
}
