// needs: attention_values
// The input of a product, computed from f32: see Prologue in prologue_epilogue.ts for what each kind is and where it
// lies.
// From the kernel: the bindings `values` and `norm_weight`.
override input_kind: u32 = 0; // 0: the values themselves
override epsilon: f32 = 0.0;

const RMS_NORM = 1u;
const ATTENTION = 2u;

// Four channels as loaded. Nothing is computed from them at once, so that a kernel can ask for other words before they
// come.
struct Input {
  x: vec4<f32>,
  // Of a norm.
  weight: vec4<f32>,
}

// The channels first + {0, 1, 2, 3} * stride of a token, all of one head.
fn load_input(token: u32, first: u32, stride: u32) -> Input {
  let at = min(channels_from(first, stride), vec4(channels - 1u));
  if (input_kind == ATTENTION) { return Input(attention(token, at), vec4(0.0)); }
  let x = load_values(token * channels + at);
  if (input_kind != RMS_NORM) { return Input(x, vec4(0.0)); }
  return Input(x, vec4(norm_weight[at.x], norm_weight[at.y], norm_weight[at.z], norm_weight[at.w]));
}

fn channels_from(first: u32, stride: u32) -> vec4<u32> {
  return vec4(first) + vec4(0u, 1u, 2u, 3u) * stride;
}

// The input itself, 0 past the end of the row; a norm's without its factor, which takes the squares of all channels.
fn input_values(input: Input, first: u32, stride: u32) -> vec4<f32> {
  var values = input.x;
  if (input_kind == RMS_NORM) { values *= input.weight; }
  return select(vec4(0.0), values, channels_from(first, stride) < vec4(channels));
}

fn input_squares(input: Input, first: u32, stride: u32) -> f32 {
  let x = select(vec4(0.0), input.x, channels_from(first, stride) < vec4(channels));
  return dot(x, x);
}

// The factor of a norm, given the sum of the squares of all channels.
fn norm_factor_of(squares: f32) -> f32 {
  return inverseSqrt(squares / f32(channels) + epsilon);
}
