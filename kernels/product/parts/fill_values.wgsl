// needs: input quarters
// is: fill
// Packs a computed input into the cells of a workgroup.

// A norm's sums of squares by team, and its factor.
var<workgroup> team_squares: array<f32, workgroup_size / team>;
var<workgroup> norm_factor: f32;

// Keeps a thread's sum of squares, for a norm.
fn put_squares(squares: f32, thread: u32) {
  let sum = sum_strided(squares, thread, 1u, team);
  if (thread % team == 0u) { team_squares[thread / team] = sum; }
}

// First channel of quarter `index` of the dispatch's groups; past the last quarter none.
fn quarter_start(index: u32) -> u32 {
  let is_used = index < 4u * columns * team * LANE_GROUPS;
  return select(channels, first_column * team * 64u + index / 4u * 16u + index % 4u, is_used);
}

// Returns the sum of the squares, for a norm.
fn fill_quarter(input: Input, index: u32, thread: u32) -> f32 {
  let start = quarter_start(index);
  put_quarter(input_values(input, start, 4u), index, index < 4u * columns * team * LANE_GROUPS, thread);
  return input_squares(input, start, 4u);
}

// Once all cells are filled: the factor of a norm, which its rows are multiplied by at the end.
fn finish_input(thread: u32) {
  if (input_kind != RMS_NORM) { return; }
  var squares = 0.0;
  for (var i = thread % team; i < workgroup_size / team; i += team) { squares += team_squares[i]; }
  squares = sum_strided(squares, thread, 1u, team);
  if (thread == 0u) { norm_factor = norm_factor_of(squares); }
}

fn input_factor() -> f32 {
  if (input_kind != RMS_NORM) { return 1.0; }
  return norm_factor;
}
