// needs: input quantize cells reduce
// is: fill
// Packs a computed input into the cells of a workgroup.
//
// Four threads share a group of 16 channels: thread j takes the channels 4i + j, whose bytes are word j of its cell.

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
  let j = index % 4u;
  let values = input_values(input, quarter_start(index), 4u);
  let largest = max_of_four(largest_bits(values), thread);
  let step = group_step(largest, LARGEST);
  let word = quantize(values, step, unit_of(j));
  let sum = sum_strided(word.sum, thread, 1u, 4u);
  if (index < 4u * columns * team * LANE_GROUPS) {
    let cell = cell_of(index / 4u);
    cell_hi[cell][j] = word.hi;
    cell_lo[cell][j] = word.lo;
    if (j == 0u) { cell_sum[cell] = vec2(group_step512(largest, step), sum); }
  }
  return input_squares(input, quarter_start(index), 4u);
}

fn max_of_four(bits: u32, thread: u32) -> u32 {
  let pair = max(bits, exchange_bits(bits, thread, 1u));
  return max(pair, exchange_bits(pair, thread, 2u));
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
