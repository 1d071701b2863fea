// needs: input_values
// is: input
// The input of fused_gemv.wgsl from buffers of its own.

@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> norm_weight: array<f32>;

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
  if (input_kind == RMS_NORM) { put_squares(squares + other_squares(token, thread), thread); }
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
