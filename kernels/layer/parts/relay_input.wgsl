// needs: relay fill_values
// is: input
// The input of a product of decode_layer.wgsl: what other workgroups hand over, or the input of the model's first
// layer.
const RMS_NORM = 1u;

// Four channels of a group, c + {0, 4, 8, 12}, as loaded.
struct Input {
  x: vec4<f32>,
  // Of a norm.
  weight: vec4<f32>,
}

// Words of four quarters, workgroup_size apart, with the weights of a norm.
struct Words {
  a: vec4<u32>,
  b: vec4<u32>,
  c: vec4<u32>,
  d: vec4<u32>,
  weight_a: vec4<f32>,
  weight_b: vec4<f32>,
  weight_c: vec4<f32>,
  weight_d: vec4<f32>,
}

// Waits for one word, after which most others have come too, and then asks for all at once, four quarters ahead.
fn fill_cells(thread: u32) {
  let count = 4u * columns * team * LANE_GROUPS;
  let stride = 4u * workgroup_size;
  if (input_at != OWN_INPUT && quarter_start(thread) < channels) { relay_await(input_at + quarter_place(thread)); }
  var next = load_words(thread);
  var squares = 0.0;
  for (var first = 0u; first < count; first += stride) {
    let index = first + thread;
    var now = next;
    for (var polls = 0u; gave_up == 0u && is_stale(now); polls++) {
      now = load_words(index);
      if (is_in_vain(polls)) { give_up(); }
    }
    if (gave_up != 0u) { now.a = vec4(bitcast<u32>(not_a_number())); }
    if (first + stride < count) { next = load_words(index + stride); }
    squares += fill_words(now.a, now.weight_a, index, thread);
    if (first + workgroup_size < count) { squares += fill_words(now.b, now.weight_b, index + workgroup_size, thread); }
    if (first + 2u * workgroup_size < count) {
      squares += fill_words(now.c, now.weight_c, index + 2u * workgroup_size, thread);
    }
    if (first + 3u * workgroup_size < count) {
      squares += fill_words(now.d, now.weight_d, index + 3u * workgroup_size, thread);
    }
  }
  if (input_kind == RMS_NORM) { put_squares(squares, thread); }
}

fn fill_words(words: vec4<u32>, weight: vec4<f32>, index: u32, thread: u32) -> f32 {
  return fill_quarter(Input(bitcast<vec4<f32>>(words & vec4(~tag_mask())), weight), index, thread);
}

// The model's input has no tags.
fn tag_mask() -> u32 {
  return select(TAG_MASK, 0u, input_at == OWN_INPUT);
}

fn is_stale(words: Words) -> bool {
  let changed = (words.a ^ vec4(tag)) | (words.b ^ vec4(tag)) | (words.c ^ vec4(tag)) | (words.d ^ vec4(tag));
  return ((changed.x | changed.y | changed.z | changed.w) & tag_mask()) != 0u;
}

fn load_words(index: u32) -> Words {
  let b = index + workgroup_size;
  let c = b + workgroup_size;
  let d = c + workgroup_size;
  var words: Words;
  words.a = quarter_words(index);
  words.b = quarter_words(b);
  words.c = quarter_words(c);
  words.d = quarter_words(d);
  if (input_kind == RMS_NORM) {
    words.weight_a = weights_at(index);
    words.weight_b = weights_at(b);
    words.weight_c = weights_at(c);
    words.weight_d = weights_at(d);
  }
  return words;
}

// Zeros, with the tag, past the last channel.
fn quarter_words(index: u32) -> vec4<u32> {
  if (quarter_start(index) >= channels) { return vec4(tag & tag_mask()); }
  if (input_at != OWN_INPUT) { return relay_quarter(input_at, index); }
  let group = index / 4u;
  let j = index % 4u;
  return bitcast<vec4<u32>>(
    vec4(hidden_in[group][0][j], hidden_in[group][1][j], hidden_in[group][2][j], hidden_in[group][3][j]),
  );
}

fn weights_at(index: u32) -> vec4<f32> {
  let norm = 2u * own_layer + select(1u, 0u, stage == QKV);
  let group = norm * (hidden / 16u) + index / 4u;
  let j = index % 4u;
  return vec4(layer_norms[group][0][j], layer_norms[group][1][j], layer_norms[group][2][j], layer_norms[group][3][j]);
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
