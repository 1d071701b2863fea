// Computes the input of a product and packs it into the cells of a workgroup. Needs lib/input_values.wgsl,
// lib/quantize.wgsl and lib/cells.wgsl.
//
// Four threads share a group of 16 channels: thread j takes the channels 4i + j, whose bytes are word j of its cell.

@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> norm_weight: array<f32>;

// A norm's sums of squares by team, and its factor.
var<workgroup> team_squares: array<f32, columns * row_teams>;
var<workgroup> norm_factor: f32;

fn fill_cells(token: u32, thread: u32) {
  let groups = columns * team * LANE_GROUPS;
  let first_group = first_column * team * LANE_GROUPS;
  var squares = 0.0;
  for (var first = 0u; first < 4u * groups; first += workgroup_size) {
    let local = (first + thread) / 4u;
    let j = thread % 4u;
    // Past the last cell: channels past the end of the row, which are 0.
    let start = select(channels, (first_group + local) * 16u + j, local < groups);
    let input = input_values(token, start, 4u);
    squares += input.squares;
    let largest = max_of_four(largest_bits(input.values), thread);
    let word = quantize(input.values, group_step(largest), unit_of(j));
    let sum = sum_strided(word.sum, thread, 1u, 4u);
    if (local < groups) {
      let cell = cell_of(local);
      cell_hi[cell][j] = word.hi;
      cell_lo[cell][j] = word.lo;
      if (j == 0u) { cell_sum[cell] = vec2(group_step128(largest), sum); }
    }
  }
  if (input_kind == RMS_NORM) {
    squares = sum_strided(squares + other_squares(token, thread), thread, 1u, team);
    if (thread % team == 0u) { team_squares[thread / team] = squares; }
  }
}

fn max_of_four(bits: u32, thread: u32) -> u32 {
  let pair = max(bits, bitcast<u32>(exchange(bitcast<f32>(bits), thread, 1u)));
  return max(pair, bitcast<u32>(exchange(bitcast<f32>(pair), thread, 2u)));
}

// Of the channels that belong to other dispatches.
fn other_squares(token: u32, thread: u32) -> f32 {
  let first = first_column * team * 64u;
  let end = first + columns * team * 64u;
  var squares = 0.0;
  if (first == 0u && end >= channels) { return squares; }
  for (var channel = thread; channel < channels; channel += workgroup_size) {
    let x = values[token * channels + channel];
    if (channel < first || channel >= end) { squares += x * x; }
  }
  return squares;
}

// Once all cells are filled: the factor of a norm, which its rows are multiplied by at the end.
fn finish_input(thread: u32) {
  if (input_kind != RMS_NORM) { return; }
  var squares = 0.0;
  for (var i = thread % team; i < columns * row_teams; i += team) { squares += team_squares[i]; }
  squares = sum_strided(squares, thread, 1u, team);
  if (thread == 0u) { norm_factor = norm_factor_of(squares); }
}

fn input_factor() -> f32 {
  if (input_kind != RMS_NORM) { return 1.0; }
  return norm_factor;
}
