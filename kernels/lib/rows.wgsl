// Where a lane stands in a matrix, and the sums of a workgroup's rows. Needs the bindings and constants of
// fused_gemv.wgsl.

// Rows of a step.
const STEP_ROWS = 4u;
// Rows that share second-order scales.
const TILE_ROWS = 16u;

struct Lane {
  thread: u32,
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
var<workgroup> partial: array<f32, (columns + 1) * workgroup_steps * STEP_ROWS>;

fn locate(thread: u32, always_zero: u32) -> Lane {
  let column = (thread / team) % columns;
  let first_half_block = (first_column + column) * team;
  let half_block = first_half_block + thread % team;
  return Lane(thread, thread % team, column, half_block, first_half_block / 2u, code_masks(always_zero));
}

fn write_rows(first_row: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let parts = select(columns, columns + 1u, outlier_residuals != 0u);
  for (var i = thread; i < count; i += workgroup_size) {
    let row = first_row + i;
    var sum = 0.0;
    for (var part = 0u; part < parts; part++) { sum += partial[part * count + i]; }
    if (row < rows) {
      if (add_to_y == 1u) { sum += y[row]; }
      y[row] = sum;
    }
  }
}

// Outliers of the workgroup's rows, four rows to a team at a time.
fn sum_outliers(first_row: u32, lane: Lane) {
  let teams = workgroup_size / team;
  let row_lanes = team / STEP_ROWS;
  for (var first = 0u; first < workgroup_steps; first += teams) {
    let local_row = (first + lane.thread / team) * STEP_ROWS + lane.lane / row_lanes;
    let row = first_row + local_row;
    let is_used = local_row < workgroup_steps * STEP_ROWS && row < rows;
    var sum = 0.0;
    if (is_used) {
      let end = outlier_planes[row + 1u];
      for (var i = outlier_planes[row] + lane.lane % row_lanes; i < end; i += row_lanes) {
        let channel = (outlier_planes[rows + 1u + i / 2u] >> (16u * (i % 2u))) & 0xffffu;
        let residual = unpack2x16float(outlier_planes[outlier_residuals + i / 2u] >> (16u * (i % 2u))).x;
        sum += residual * bitcast<f32>(activations[10u * half_blocks + channel / 4u][channel % 4u]);
      }
    }
    sum = sum_strided(sum, lane.thread, 1u, row_lanes);
    if (is_used && lane.lane % row_lanes == 0u) { partial[columns * workgroup_steps * STEP_ROWS + local_row] = sum; }
  }
}
