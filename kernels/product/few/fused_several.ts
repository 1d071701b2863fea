// Launcher of the fused matrix-vector kernel for several tokens at once.
import type { DeviceProfile } from "../../gpu/device_profile.ts";
import type { Dispatch, Gpu } from "../../gpu/gpu.ts";
import { joinShader } from "../../gpu/shader.ts";
import { chooseTeam, type Team } from "../../gpu/team.ts";
import { type PackedMatrix, planeBuffers, STEP_ROWS } from "../../matrix/packed_matrix.ts";
import { addParts, partialsBytesOf } from "./few_parts.ts";
import { LANE_GROUPS } from "../fused_gemv.ts";
import { cellBytes } from "../pack_activations.ts";
import {
  checkOutput,
  type Epilogue,
  inputBuffers,
  inputConstants,
  outputConstant,
  type Prologue,
  rowsPerOutput,
} from "../prologue_epilogue.ts";
import type { FewScratch } from "../weight_format.ts";
import * as wgsl from "../wgsl.ts";

/** Workgroup memory of a column for each lane and token, and for each team whatever the tokens. */
const CELL_BYTES = LANE_GROUPS * cellBytes(16);
const TEAM_BYTES = 16;
/** Workgroup memory of a workgroup whatever its size: a norm's factors, and what aligns arrays. */
const FIXED_BYTES = 32;
/** Most teams of a workgroup: more have too few registers. */
const TEAMS = 12;
/** Steps of a workgroup that are worth filling its memory. */
const LEAST_STEPS = 4;

/** How the rows and columns of a matrix are spread over workgroups and teams. */
export interface SeveralPlan {
  /** Tokens of a workgroup. */
  readonly tokens: 2 | 4;
  /** Parts of the channels. */
  readonly parts: number;
  /** Columns of a part, of a team's half blocks each. */
  readonly columns: number;
  /** Teams of a workgroup that work on different rows of the same column. */
  readonly rowTeams: number;
  /** Steps of 4 rows that a workgroup walks. */
  readonly workgroupSteps: number;
  /** Workgroups of each part. */
  readonly workgroups: number;
}

/** Spreads a matrix over workgroups; nothing where workgroup memory has no room, without parts if there may be none. */
export function planSeveral(
  profile: DeviceProfile,
  rows: number,
  halfBlocks: number,
  { tokens, perOutput, mayPart }: {
    readonly tokens: number;
    readonly perOutput: 1 | 2;
    readonly mayPart: boolean;
  },
): SeveralPlan | undefined {
  const team = chooseTeam(profile);
  const allColumns = Math.ceil(halfBlocks / team.lanes);
  const most = mayPart ? allColumns : 1;
  const one = (each: 2 | 4, parts: number) =>
    planOf(profile, team, rows / perOutput, allColumns, { each, parts, perOutput });
  for (let parts = 1; parts <= most; parts++) {
    const plan = (tokens > 2 && one(4, parts)) || ((tokens <= 2 || parts === 1) && one(2, parts));
    if (plan) return plan;
  }
  return undefined;
}

function planOf(
  { multiprocessors, workgroupBytes, workgroupThreads }: DeviceProfile,
  team: Team,
  outputs: number,
  allColumns: number,
  { each, parts, perOutput }: { each: 2 | 4; parts: number; perOutput: 1 | 2 },
): SeveralPlan | undefined {
  const columns = Math.ceil(allColumns / parts);
  const mostRowTeams = Math.floor(Math.min(TEAMS, workgroupThreads / team.lanes) / columns);
  const teamBytes = TEAM_BYTES + team.lanes * team.exchangeBytes;
  const room = workgroupBytes - FIXED_BYTES - columns * (each * team.lanes * CELL_BYTES + mostRowTeams * teamBytes);
  const mostRun = Math.floor(room / (each * columns * STEP_ROWS * 4) / perOutput);
  const runSteps = Math.ceil(outputs / STEP_ROWS);
  const wanted = Math.ceil(runSteps / Math.max(1, Math.floor(multiprocessors / parts)));
  if (mostRowTeams < 1 || mostRun < Math.min(wanted, LEAST_STEPS)) return undefined;
  const run = Math.min(wanted, mostRun);
  const workgroupSteps = perOutput * run;
  const rowTeams = Math.ceil(workgroupSteps / Math.ceil(workgroupSteps / mostRowTeams));
  return { tokens: each, parts, columns, rowTeams, workgroupSteps, workgroups: Math.ceil(runSteps / run) };
}

/** Bytes of the parts' sums of a product with up to so many tokens, 0 where there are no parts. */
export function severalPartialsBytes({ profile }: Gpu, { slabs, halfBlocks }: PackedMatrix, tokens: number): number {
  return Math.max(...slabs.map(({ rows }) => {
    const plan = planSeveral(profile, rows, halfBlocks, { tokens, perOutput: 1, mayPart: true });
    return !plan || plan.parts === 1 ? 0 : partialsBytesOf(plan.parts, rows, tokens, tokens);
  }));
}

/** Whether {@linkcode fusedSeveral} makes silu(gate) up of a matrix with the rows of both. */
export function takesSeveralPairs({ profile }: Gpu, { slabs, halfBlocks }: PackedMatrix, tokens: number): boolean {
  return slabs.every(({ rows }) => planSeveral(profile, rows, halfBlocks, { tokens, perOutput: 2, mayPart: false }));
}

/**
 * Dispatches that compute y from W x for the tokens of a range, up to four or some fours; nothing where workgroup memory
 * has no room. Products of plain vectors, side by side, may be made in parts of the channels.
 */
export async function fusedSeveral(
  gpu: Gpu,
  matrix: PackedMatrix,
  input: Prologue,
  output: Epilogue,
  { range, partials, activationBits = 16 }: FewScratch,
): Promise<Dispatch[] | undefined> {
  checkOutput(output, matrix.rows, matrix.slabs.length);
  const { maxTokens: tokens } = range;
  const perOutput = rowsPerOutput(output);
  const mayPart = input.kind === "vector" && perOutput === 1;
  const shader = joinShader(wgsl, "fused_several", chooseTeam(gpu.profile).exchange);
  const tokenRows = matrix.rows / perOutput;
  const dispatches: Dispatch[] = [];
  for (const slab of matrix.slabs) {
    const plan = planSeveral(gpu.profile, slab.rows, matrix.halfBlocks, { tokens, perOutput, mayPart });
    if (!plan) return undefined;
    const isWhole = plan.parts === 1;
    const y = { buffer: output.y.buffer, offset: output.y.offset ?? 0, size: tokens * tokenRows * 4 };
    dispatches.push(
      await gpu.makeDispatch(shader, {
        constants: {
          ...severalConstants(gpu, matrix, slab.rows, plan),
          ...inputConstants(input, matrix.channels),
          all_tokens: tokens,
          activation_bits: activationBits,
          output_kind: isWhole ? outputConstant(output) : 0,
          token_rows: isWhole ? tokenRows : 4 * Math.ceil(slab.rows / 4),
          y_row: isWhole ? slab.firstRow : 0,
          outlier_residuals: isWhole ? slab.outlierResiduals : 0,
        },
        buffers: { ...planeBuffers(slab), y: isWhole ? y : partials, ...inputBuffers(input) },
        workgroups: [plan.workgroups * plan.parts, 1, Math.ceil(tokens / plan.tokens)],
      }),
    );
    if (isWhole || input.kind !== "vector") continue;
    const parts = { range, partials, splits: plan.parts, tokens, x: input.x };
    const outliers = { planes: slab.outliers, residuals: slab.outlierResiduals };
    dispatches.push(await addParts(gpu, matrix, { ...slab, outliers }, parts, output));
  }
  return dispatches;
}

function severalConstants(gpu: Gpu, matrix: PackedMatrix, rows: number, plan: SeveralPlan): Record<string, number> {
  const team = chooseTeam(gpu.profile);
  return {
    rows,
    half_blocks: matrix.halfBlocks,
    refine_every: matrix.refineEvery === "none" ? 0 : matrix.refineEvery,
    team: team.lanes,
    tokens: plan.tokens,
    columns: plan.columns,
    row_teams: plan.rowTeams,
    row_workgroups: plan.workgroups,
    workgroup_steps: plan.workgroupSteps,
    workgroup_size: team.lanes * plan.columns * plan.rowTeams,
    cell_count: plan.tokens * team.lanes * plan.columns * LANE_GROUPS,
    partial_count: plan.tokens * plan.columns * plan.workgroupSteps * STEP_ROWS,
  };
}
