// needs: relay_groups
// is: input
// The input of a product of decode_layer.wgsl: groups that other workgroups hand over packed, values that they hand
// over as they are, or the input of the model's first layer.
const RMS_NORM = 1u;

// Four channels of a group, c + {0, 4, 8, 12}.
struct Input {
  x: vec4<f32>,
  // Of a norm.
  weight: vec4<f32>,
}

// Brings the groups before packed_groups as they are, packs the others; those of the columns at hand. Waits for one
// word first, after which most others have come too.
fn fill_cells(thread: u32) {
  let start = first_column * team * LANE_GROUPS;
  let end = start + columns * team * LANE_GROUPS;
  var squares = 0.0;
  var next: HandedGroup;
  if (start + thread < packed_groups) {
    relay_await(step_place(input_at, start + thread));
    next = load_handed(input_at, start + thread);
  }
  for (var group = start + thread; group < end; group += workgroup_size) {
    let now = next;
    let following = group + workgroup_size;
    if (following < packed_groups) { next = load_handed(input_at, following); }
    if (group < packed_groups) {
      squares += put_handed(await_handed(input_at, group, now), cell_of(group - start));
    } else if (group >= channels / 16u) {
      put_nothing(cell_of(group - start));
    }
  }
  for (var first = 4u * max(start, packed_groups); first < min(channels / 4u, 4u * end); first += workgroup_size) {
    squares += fill_quarter(plain_input(first + thread), first + thread - 4u * start, thread);
  }
  if (input_kind == RMS_NORM) { put_squares(squares, thread); }
}

fn put_nothing(cell: u32) {
  cell_hi[cell] = vec4(0u);
  if (activation_bits > 8u) { cell_lo[cell] = vec4(0u); }
  cell_sum[cell] = vec2(0.0);
}

// A quarter that comes unpacked, zeros past the last channel.
fn plain_input(quarter: u32) -> Input {
  if (quarter >= channels / 4u) { return Input(vec4(0.0), vec4(0.0)); }
  if (input_at == OWN_INPUT) { return Input(model_input(quarter), norm_weights(2u * own_layer, quarter)); }
  let own = quarter - 4u * packed_groups;
  var words = relay_quarter(rest_at, own);
  for (var polls = 0u; looks_again(any(((words ^ vec4(tag)) & vec4(TAG_MASK)) != vec4(0u)), polls); polls++) {
    words = relay_quarter(rest_at, own);
  }
  if (gave_up != 0u) { return Input(vec4(not_a_number()), vec4(0.0)); }
  return Input(values_of(words), vec4(0.0));
}

fn norm_weights(norm: u32, quarter: u32) -> vec4<f32> {
  let group = norm * (hidden / 16u) + quarter / 4u;
  let j = quarter % 4u;
  return vec4(layer_norms[group][0][j], layer_norms[group][1][j], layer_norms[group][2][j], layer_norms[group][3][j]);
}

fn model_input(quarter: u32) -> vec4<f32> {
  let group = quarter / 4u;
  let j = quarter % 4u;
  return vec4(hidden_in[group][0][j], hidden_in[group][1][j], hidden_in[group][2][j], hidden_in[group][3][j]);
}

// The input itself; a norm's without its factor, which takes the squares of all channels.
fn input_values(input: Input, first: u32, stride: u32) -> vec4<f32> {
  if (input_kind == RMS_NORM) { return input.x * input.weight; }
  return input.x;
}

fn input_squares(input: Input, first: u32, stride: u32) -> f32 {
  return dot(input.x, input.x);
}

// The factor of a norm, given the sum of the squares of all channels.
fn norm_factor_of(squares: f32) -> f32 {
  return inverseSqrt(squares / f32(channels) + epsilon);
}
