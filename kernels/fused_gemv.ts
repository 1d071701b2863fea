/**
 * Launcher of the fused, asynchronous matrix-vector kernel.
 *
 * @module
 */
import type { Dispatch, Gpu } from "./gpu.ts";
import { chooseTeam, type Team } from "./team.ts";
import type { PackedMatrix, PackedSlab } from "./packed_matrix.ts";
import kernelCode from "./fused_gemv.wgsl" with { type: "text" };
import activationsCode from "./lib/activations.wgsl" with { type: "text" };
import decodeCode from "./lib/decode.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };

/** What {@linkcode fusedGemv} accepts beside its buffers. */
export interface FusedGemvOptions {
  /** y += W x instead of y = W x. Default: false. */
  readonly addToY?: boolean;
  /** Workgroups to spread the rows over; best is one for each multiprocessor. Default: 132. */
  readonly workgroups?: number;
  /** Teams (subgroups) of a workgroup; more hide more latency, fewer have more registers. Default: 20. */
  readonly teams?: number;
}

/** How the rows and columns of a slab are spread over workgroups and teams. */
export interface GemvPlan {
  /** Columns of a dispatch; one entry a dispatch. */
  readonly columns: readonly number[];
  readonly rowTeams: number;
  /** Steps of 4 rows that a workgroup walks. */
  readonly workgroupSteps: number;
  readonly workgroups: number;
}

const STEP_ROWS = 4;
const CELL_BYTES = 48;
const CELLS_A_LANE = 4;
/** Most bytes of partial sums in workgroup memory. */
const PARTIAL_BYTES = 8192;

/**
 * Dispatches that compute y = W x.
 *
 * @param activations packed activations of `matrix.channels` channels, see {@linkcode packActivations}
 * @param y f32 [rows], at an offset that is a multiple of 256 bytes
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
  for (const slab of matrix.slabs) {
    const plan = planGemv(gpu, team, slab.rows, matrix.halfBlocks, options);
    let firstColumn = 0;
    for (const columns of plan.columns) {
      const addToY = options.addToY || firstColumn > 0;
      const constants = fusedConstants(matrix, slab, team, plan, columns, firstColumn, addToY);
      const kernel = await gpu.createKernel("fused_gemv", fusedGemvCode(team), constants);
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
          { buffer: y.buffer, offset: (y.offset ?? 0) + slab.firstRow * 4, size: slab.rows * 4 },
        ]),
        workgroups: [plan.workgroups, 1, 1],
      });
      firstColumn += columns;
    }
  }
  return dispatches;
}

/** The whole shader for a kind of team. */
export function fusedGemvCode(team: Team): string {
  return [kernelCode, activationsCode, decodeCode, reduceCode, team.exchangeCode].join("\n");
}

function fusedConstants(
  matrix: PackedMatrix,
  slab: PackedSlab,
  team: Team,
  plan: GemvPlan,
  columns: number,
  firstColumn: number,
  addToY: boolean,
): Record<string, number> {
  return {
    rows: slab.rows,
    half_blocks: matrix.halfBlocks,
    refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
    team: team.lanes,
    columns,
    first_column: firstColumn,
    row_teams: plan.rowTeams,
    workgroup_steps: plan.workgroupSteps,
    workgroup_size: team.lanes * columns * plan.rowTeams,
    outlier_residuals: firstColumn === 0 ? slab.outlierResiduals : 0,
    add_to_y: addToY ? 1 : 0,
  };
}

/** Spreads a matrix over workgroups within the device's limits. */
export function planGemv(
  gpu: Gpu,
  team: Team,
  rows: number,
  halfBlocks: number,
  options: FusedGemvOptions = {},
): GemvPlan {
  const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = gpu.device.limits;
  const columnBytes = team.lanes * (CELLS_A_LANE * CELL_BYTES + team.exchangeBytes);
  const maxTeams = Math.min(options.teams ?? 20, Math.floor(maxComputeInvocationsPerWorkgroup / team.lanes));
  const maxColumns = Math.min(maxTeams, Math.floor((maxComputeWorkgroupStorageSize - PARTIAL_BYTES) / columnBytes));
  const allColumns = Math.ceil(halfBlocks / team.lanes);
  const dispatches = Math.ceil(allColumns / maxColumns);
  const columns = Math.ceil(allColumns / dispatches);
  const steps = Math.ceil(rows / STEP_ROWS);
  const mostSteps = Math.floor(PARTIAL_BYTES / ((columns + 1) * STEP_ROWS * 4));
  const workgroupSteps = Math.min(mostSteps, Math.ceil(steps / (options.workgroups ?? 132)));
  const rounds = Math.ceil(workgroupSteps / Math.max(1, Math.floor(maxTeams / columns)));
  return {
    columns: Array.from({ length: dispatches }, (_, i) => Math.min(columns, allColumns - i * columns)),
    rowTeams: Math.ceil(workgroupSteps / rounds),
    workgroupSteps,
    workgroups: Math.ceil(steps / workgroupSteps),
  };
}
