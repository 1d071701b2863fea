// Where a lane stands in a matrix, and the sums of a workgroup's rows. Needs the bindings and constants of
// fused_gemv.wgsl.

// Rows of a step.
const STEP_ROWS = 4u;
// Rows that share second-order scales.
const TILE_ROWS = 16u;

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
var<workgroup> partial: array<f32, (columns + 1) * workgroup_steps * STEP_ROWS>;

fn locate(thread: u32, workgroup: vec3<u32>) -> Lane {
  let column = (thread / team) % columns;
  let first_half_block = (first_column + column) * team;
  let half_block = first_half_block + thread % team;
  let masks = code_masks(workgroup.z);
  return Lane(thread, workgroup.y, thread % team, column, half_block, first_half_block / 2u, masks);
}

fn write_rows(first_row: u32, thread: u32, token: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let parts = select(columns, columns + 1u, outlier_residuals != 0u);
  for (var i = thread; i < count; i += workgroup_size) {
    let row = first_row + i;
    var sum = 0.0;
    for (var part = 0u; part < parts; part++) { sum += partial[part * count + i]; }
    if (row < rows) {
      let at = token * token_rows + row;
      if (add_to_y == 1u) { sum += y[at]; }
      y[at] = sum;
    }
  }
}

// Second-order scales of the four groups of a lane: two f16 in each word.
fn own_scales(row: u32, lane: Lane) -> vec2<u32> {
  let scales = tile_scale[(row / TILE_ROWS) * (half_blocks / 2u) + lane.half_block / 2u];
  return select(scales.xy, scales.zw, lane.half_block % 2u == 1u);
}
