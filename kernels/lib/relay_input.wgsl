// The input of a product of decode_layer.wgsl: the layer's own input, or what other workgroups hand over. Needs
// lib/relay.wgsl, lib/fill_values.wgsl and the bindings and variables of decode_layer.wgsl.
const RMS_NORM = 1u;

// Four channels of a group, c + {0, 4, 8, 12}, as loaded.
struct Input {
  x: vec4<f32>,
  // Of a norm.
  weight: vec4<f32>,
}

// Input of four quarters, workgroup_size apart.
struct Fill {
  a: Input,
  b: Input,
  c: Input,
  d: Input,
}

// Nothing is asked for before it has come.
fn begin_fill(token: u32, thread: u32) -> Fill {
  return Fill();
}

// Waits for one word, after which most others have come too, and then asks for all at once.
fn next_fill(begun: Fill, first: u32, token: u32, index: u32) -> Fill {
  let b = index + workgroup_size;
  let c = b + workgroup_size;
  let d = c + workgroup_size;
  var fill: Fill;
  if (input_kind == RMS_NORM) {
    fill.a.weight = weights_at(index);
    fill.b.weight = weights_at(b);
    fill.c.weight = weights_at(c);
    fill.d.weight = weights_at(d);
  }
  if (input_at == OWN_INPUT) {
    fill.a.x = own_at(index);
    fill.b.x = own_at(b);
    fill.c.x = own_at(c);
    fill.d.x = own_at(d);
    return fill;
  }
  if (quarter_start(index) < channels) { relay_await(input_at + quarter_place(index)); }
  for (var polls = 0u; polls == 0u || is_stale != 0u; polls++) {
    is_stale = 0u;
    fill.a.x = quarter_at(index);
    fill.b.x = quarter_at(b);
    fill.c.x = quarter_at(c);
    fill.d.x = quarter_at(d);
    if (polls > most_polls) { give_up(); }
    if (gave_up != 0u) { break; }
  }
  if (gave_up != 0u) { fill.a.x = vec4(not_a_number()); }
  return fill;
}

fn weights_at(index: u32) -> vec4<f32> {
  let group = index / 4u;
  let j = index % 4u;
  if (input_at == OWN_INPUT) {
    return vec4(
      attention_norm[group][0][j],
      attention_norm[group][1][j],
      attention_norm[group][2][j],
      attention_norm[group][3][j],
    );
  }
  return vec4(mlp_norm[group][0][j], mlp_norm[group][1][j], mlp_norm[group][2][j], mlp_norm[group][3][j]);
}

fn own_at(index: u32) -> vec4<f32> {
  let group = index / 4u;
  let j = index % 4u;
  if (quarter_start(index) >= channels) { return vec4(0.0); }
  return vec4(hidden_in[group][0][j], hidden_in[group][1][j], hidden_in[group][2][j], hidden_in[group][3][j]);
}

fn quarter_at(index: u32) -> vec4<f32> {
  if (quarter_start(index) >= channels) { return vec4(0.0); }
  return relay_quarter(input_at, index);
}

// The input itself; a norm's without its factor, which takes the squares of all channels.
fn input_values(input: Input, first: u32, stride: u32) -> vec4<f32> {
  if (input_kind == RMS_NORM) { return input.x * input.weight; }
  return input.x;
}

fn input_squares(input: Input, first: u32, stride: u32) -> f32 {
  return dot(input.x, input.x);
}

// Of channels that belong to other dispatches: there are none.
fn other_squares(token: u32, thread: u32) -> f32 {
  return 0.0;
}

// The factor of a norm, given the sum of the squares of all channels.
fn norm_factor_of(squares: f32) -> f32 {
  return inverseSqrt(squares / f32(channels) + epsilon);
}
