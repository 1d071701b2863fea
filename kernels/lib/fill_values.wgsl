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
  let count = 4u * columns * team * LANE_GROUPS;
  var squares = 0.0;
  // Four at a time, all their loads in flight together.
  for (var first = 0u; first < count; first += 4u * workgroup_size) {
    let index = first + thread;
    let a = quarter_input(token, index);
    let b = quarter_input(token, index + workgroup_size);
    let c = quarter_input(token, index + 2u * workgroup_size);
    let d = quarter_input(token, index + 3u * workgroup_size);
    squares += a.squares + b.squares + c.squares + d.squares;
    fill_quarter(a.values, index, thread);
    if (first + workgroup_size < count) { fill_quarter(b.values, index + workgroup_size, thread); }
    if (first + 2u * workgroup_size < count) { fill_quarter(c.values, index + 2u * workgroup_size, thread); }
    if (first + 3u * workgroup_size < count) { fill_quarter(d.values, index + 3u * workgroup_size, thread); }
  }
  if (input_kind == RMS_NORM) {
    squares = sum_strided(squares + other_squares(token, thread), thread, 1u, team);
    if (thread % team == 0u) { team_squares[thread / team] = squares; }
  }
}

// Input of quarter `index` of the dispatch's groups; 0 past the last.
fn quarter_input(token: u32, index: u32) -> Input {
  let channel = first_column * team * 64u + index / 4u * 16u + index % 4u;
  return input_values(token, select(channels, channel, index < 4u * columns * team * LANE_GROUPS), 4u);
}

fn fill_quarter(values: vec4<f32>, index: u32, thread: u32) {
  let j = index % 4u;
  let largest = max_of_four(largest_bits(values), thread);
  let word = quantize(values, group_step(largest), unit_of(j));
  let sum = sum_strided(word.sum, thread, 1u, 4u);
  if (index < 4u * columns * team * LANE_GROUPS) {
    let cell = cell_of(index / 4u);
    cell_hi[cell][j] = word.hi;
    cell_lo[cell][j] = word.lo;
    if (j == 0u) { cell_sum[cell] = vec2(group_step512(largest), sum); }
  }
}

fn max_of_four(bits: u32, thread: u32) -> u32 {
  let pair = max(bits, exchange_bits(bits, thread, 1u));
  return max(pair, exchange_bits(pair, thread, 2u));
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
