// Rounds inputs to f16 in units and turns them: what outer_matrices.wgsl sums over tokens.
//
//   turned[c, t] = x[t, c] / unit, zeros past the last token
//
// Bindings (T = tokens, P = T in whole steps of 32):
//   0 x       vec4<f32> [T, channels / 4]
//   1 turned  vec4<u32> [channels, P / 8]
//
// Mapping: 64 channels (x) of 64 tokens (y) a workgroup. A thread loads four channels of two tokens twice, neighbours
// neighbouring channels, then writes eight tokens of a channel twice.
override tokens: u32 = 1;
override channels: u32 = 4; // a multiple of 4
override activation_unit: f32 = 1.0;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> turned: array<vec4<u32>>;

// [channel][two tokens], and one more for other memory banks.
var<workgroup> pairs: array<array<u32, 33>, 64>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_channel = 64u * workgroup.x;
  let first_token = 64u * workgroup.y;
  put_pair(first_channel, first_token, thread % 16u, thread / 16u);
  put_pair(first_channel, first_token, thread % 16u, thread / 16u + 16u);
  workgroupBarrier();
  write_eight(first_channel, first_token, thread / 8u, thread % 8u);
  write_eight(first_channel, first_token, thread / 8u + 32u, thread % 8u);
}

fn put_pair(first_channel: u32, first_token: u32, four: u32, pair: u32) {
  let channel = first_channel + 4u * four;
  let even = inputs_at(first_token + 2u * pair, channel);
  let odd = inputs_at(first_token + 2u * pair + 1u, channel);
  pairs[4u * four][pair] = pack2x16float(vec2(even.x, odd.x));
  pairs[4u * four + 1u][pair] = pack2x16float(vec2(even.y, odd.y));
  pairs[4u * four + 2u][pair] = pack2x16float(vec2(even.z, odd.z));
  pairs[4u * four + 3u][pair] = pack2x16float(vec2(even.w, odd.w));
}

// Four channels of a token; anything for channels past the end, which are not written.
fn inputs_at(token: u32, channel: u32) -> vec4<f32> {
  let at = (min(token, tokens - 1u) * channels + min(channel, channels - 4u)) / 4u;
  return select(vec4(0.0), x[at] / activation_unit, token < tokens);
}

fn write_eight(first_channel: u32, first_token: u32, row: u32, eight: u32) {
  let turns = (tokens + 31u) / 32u * 4u;
  let channel = first_channel + row;
  let turn = first_token / 8u + eight;
  if (channel >= channels || turn >= turns) { return; }
  let pair = 4u * eight;
  turned[channel * turns + turn] =
    vec4(pairs[row][pair], pairs[row][pair + 1u], pairs[row][pair + 2u], pairs[row][pair + 3u]);
}
