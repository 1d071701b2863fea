// needs: outputs decode reduce
// Where a lane stands in a matrix, and the sums of a workgroup's rows. From the kernel: the bindings and constants of
// fused_gemv.wgsl (in decode_layer.wgsl variables), and output_row(first_row, i), row i of those of y that a workgroup
// makes; and what a lane loads at a time: `Step` and load_step(row, lane).

// Rows of a step.
const STEP_ROWS = 4u;
// Past every step, but not so far that its rows overflow.
const NO_STEP = 0x100000u;

struct Lane {
  thread: u32,
  token: u32,
  // Within the team.
  lane: u32,
  // Of the workgroup.
  column: u32,
  half_block: u32,
  // First block of the column.
  first_block: u32,
  masks: CodeMasks,
}

// Sums of each row by column, and of its outliers.
var<workgroup> partial: array<f32, partial_count>;

fn locate(thread: u32, workgroup: vec3<u32>) -> Lane {
  let column = (thread / team) % columns;
  let first_half_block = (first_column + column) * team;
  let half_block = first_half_block + thread % team;
  let masks = code_masks(workgroup.y);
  return Lane(thread, workgroup.z, thread % team, column, half_block, first_half_block / 2u, masks);
}

// The first step of a row of teams.
fn first_step(first_row: u32, lane: Lane) -> Step {
  var step: Step;
  let row = matrix_row(first_row, row_team_of(lane.thread) * STEP_ROWS);
  if (row < rows) { step = load_step(row, lane); }
  return step;
}

// Teams beyond the last whole row of teams walk along, so that loops are the same for all, past the last step.
fn row_team_of(thread: u32) -> u32 {
  let row_team = thread / (team * columns);
  return select(row_team, NO_STEP, row_team >= row_teams);
}

// Rows of y that a workgroup makes, of one row of the matrix each, or of a gate and an up row.
fn workgroup_outputs() -> u32 {
  return workgroup_steps * STEP_ROWS / rows_per_output();
}

// Row of the matrix that is row i of a workgroup: up rows follow gate rows. `rows` where there is none.
fn matrix_row(first_row: u32, i: u32) -> u32 {
  let outputs = workgroup_outputs();
  let half = rows / rows_per_output();
  let is_up = i >= outputs;
  let row = output_row(first_row, select(i, i - outputs, is_up));
  return select(rows, select(row, half + row, is_up), i < workgroup_steps * STEP_ROWS && row < half);
}

// Sums four rows over a team: each of the first two exchanges hands half of the sums over, so that all four cost six
// exchanges and not twenty. `refined` holds more of the rows 0 and 1 in even lanes and of 2 and 3 in odd ones. Lane i
// returns row summed_row(i).
fn sum_step(v: vec4<f32>, refined: vec2<f32>, lane: Lane) -> f32 {
  let is_odd = (lane.lane & 1u) == 1u;
  let handed = select(v.zw, v.xy, is_odd);
  let kept = select(v.xy, v.zw, is_odd) + refined;
  let a = kept.x + exchange(handed.x, lane.thread, 1u);
  let b = kept.y + exchange(handed.y, lane.thread, 1u);
  let is_high = (lane.lane & 2u) == 2u;
  let sum = select(a, b, is_high) + exchange(select(b, a, is_high), lane.thread, 2u);
  return sum_strided(sum, lane.thread, 4u, team);
}

fn summed_row(lane: u32) -> u32 {
  return (lane & 1u) * 2u + ((lane >> 1u) & 1u);
}

fn row_sum(i: u32) -> f32 {
  let parts = select(columns, columns + 1u, has_outliers());
  var sum = 0.0;
  for (var part = 0u; part < parts; part++) { sum += partial[part * workgroup_steps * STEP_ROWS + i]; }
  return sum * input_factor();
}
