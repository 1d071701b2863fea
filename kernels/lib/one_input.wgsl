// The input of fused_gemv.wgsl from buffers of its own. Needs lib/input_values.wgsl.

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

// The quarters from `index` on, of which begin_fill has brought the first.
fn next_fill(begun: Fill, first: u32, token: u32, index: u32) -> Fill {
  if (first == 0u) { return begun; }
  return load_quarters(token, index);
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
