// Computes the input of a product and packs it into the cells of a workgroup. Needs lib/input_values.wgsl,
// lib/quantize.wgsl and lib/cells.wgsl.
//
// Four threads share a group of 16 channels: thread j takes the channels 4i + j, whose bytes are word j of its cell.

@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> norm_weight: array<f32>;

// A norm's sums of squares by team, and its factor.
var<workgroup> team_squares: array<f32, columns * row_teams>;
var<workgroup> norm_factor: f32;

// Input of four quarters, workgroup_size apart.
struct Fill {
  a: Input,
  b: Input,
  c: Input,
  d: Input,
}

// Asks for what fill_cells needs first, so that weights can be asked for before it comes.
fn begin_fill(token: u32, thread: u32) -> Fill {
  return load_quarters(token, thread);
}

fn load_quarters(token: u32, index: u32) -> Fill {
  let count = 4u * columns * team * LANE_GROUPS;
  // Behind branches, as compilers would sink loads to their first use.
  var fill: Fill;
  if (index < count) { fill.a = load_input(token, quarter_start(index), 4u); }
  if (index + workgroup_size < count) { fill.b = load_input(token, quarter_start(index + workgroup_size), 4u); }
  if (index + 2u * workgroup_size < count) { fill.c = load_input(token, quarter_start(index + 2u * workgroup_size), 4u); }
  if (index + 3u * workgroup_size < count) { fill.d = load_input(token, quarter_start(index + 3u * workgroup_size), 4u); }
  return fill;
}

fn fill_cells(first_four: Fill, token: u32, thread: u32) {
  let count = 4u * columns * team * LANE_GROUPS;
  var fill = first_four;
  var squares = 0.0;
  for (var first = 0u; first < count; first += 4u * workgroup_size) {
    let index = first + thread;
    if (first > 0u) { fill = load_quarters(token, index); }
    squares += fill_quarter(fill.a, index, thread);
    if (first + workgroup_size < count) { squares += fill_quarter(fill.b, index + workgroup_size, thread); }
    if (first + 2u * workgroup_size < count) { squares += fill_quarter(fill.c, index + 2u * workgroup_size, thread); }
    if (first + 3u * workgroup_size < count) { squares += fill_quarter(fill.d, index + 3u * workgroup_size, thread); }
  }
  if (input_kind == RMS_NORM) {
    squares = sum_strided(squares + other_squares(token, thread), thread, 1u, team);
    if (thread % team == 0u) { team_squares[thread / team] = squares; }
  }
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
  let word = quantize(values, group_step(largest), unit_of(j));
  let sum = sum_strided(word.sum, thread, 1u, 4u);
  if (index < 4u * columns * team * LANE_GROUPS) {
    let cell = cell_of(index / 4u);
    cell_hi[cell][j] = word.hi;
    cell_lo[cell][j] = word.lo;
    if (j == 0u) { cell_sum[cell] = vec2(group_step512(largest), sum); }
  }
  return input_squares(input, quarter_start(index), 4u);
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
