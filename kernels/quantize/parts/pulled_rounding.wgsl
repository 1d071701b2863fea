// needs: group_grid
// is: rounding
// The error of a group's codes where each rounded weight pulls at those after it (roundGroup in quant/group_search.ts).
// The kernel fills `pulls` and `pivots`.

// [j][four of k]; 0 for k <= j.
var<workgroup> pulls: array<Values, 16>;
var<workgroup> pivots: Values;

fn rounding_error(start: Values, grid: Grid) -> f32 {
  var wanted = start;
  settle(&wanted, grid);
  let sums = squares(0u, wanted[0], pivots[0], grid) + squares(1u, wanted[1], pivots[1], grid) +
    squares(2u, wanted[2], pivots[2], grid) + squares(3u, wanted[3], pivots[3], grid);
  return (sums.x + sums.y) + (sums.z + sums.w);
}

fn squares(four: u32, wanted: vec4<f32>, pivot: vec4<f32>, grid: Grid) -> vec4<f32> {
  let error = (wanted - rounded_values(four, wanted, grid)) * pivot;
  return error * error;
}

// Takes from each weight what the rounded ones before it pull; what remains is what it is rounded from.
fn settle(wanted: ptr<function, Values>, grid: Grid) {
  settle_four(0u, wanted, grid);
  settle_four(1u, wanted, grid);
  settle_four(2u, wanted, grid);
  settle_four(3u, wanted, grid);
}

fn settle_four(four: u32, wanted: ptr<function, Values>, grid: Grid) {
  pull_from(four, pulls[4u * four], rounded_value(4u * four, (*wanted)[four].x, grid), wanted);
  pull_from(four, pulls[4u * four + 1u], rounded_value(4u * four + 1u, (*wanted)[four].y, grid), wanted);
  pull_from(four, pulls[4u * four + 2u], rounded_value(4u * four + 2u, (*wanted)[four].z, grid), wanted);
  pull_from(four, pulls[4u * four + 3u], rounded_value(4u * four + 3u, (*wanted)[four].w, grid), wanted);
}

fn rounded_value(k: u32, wanted: f32, grid: Grid) -> f32 {
  if (has_outliers != 0u && ((outlier_mask >> k) & 1u) != 0u) { return wanted; }
  return (clamp(floor(wanted * grid.per_step + (grid.zero + 0.5)), 0.0, grid.last_code) - grid.zero) * grid.step;
}

// Only fours from `four` on: the pulls before are zero.
fn pull_from(four: u32, pull: Values, value: f32, wanted: ptr<function, Values>) {
  if (four == 0u) { (*wanted)[0] -= value * pull[0]; }
  if (four <= 1u) { (*wanted)[1] -= value * pull[1]; }
  if (four <= 2u) { (*wanted)[2] -= value * pull[2]; }
  (*wanted)[3] -= value * pull[3];
}
