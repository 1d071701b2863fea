// Error feedback through a block of channels whose grids are known (quant/error_feedback.ts), channel after channel in
// the order of quantization.
//
//   wanted[k] = w[k] + (sum over earlier channels i of e[i] V[i, k]) / V[k, k],  e[i] = w[i] - q[i]
//   code[k] = the nearest one of the grid of k's group, q[k] = lowest + code[k] * step
//
// Bindings (C = channels in quantization order, G = groups of a row):
//   0 block           uniform: first channel of the block, its channels (a multiple of 8), first channel of `carried`,
//                     the element of `factor` at which the block's first row begins
//   1 transposed      f32 [C, rows]: w, which e replaces
//   2 factor          vec4<f32> rows of C / 4: V in the upper triangle
//   3 carried         f32 [some channels, rows]: sum over the channels i before the block of e[i] V[i, k], zeroed when
//                     read
//   4 channel_groups  u32 [C]: the group of the channel in 16 bits, above them its highest code
//   5 grids           vec2<f32> [G, rows]: lowest, step; a step of 0 has one code
//   6 codes           u32 [C / 8, rows]: 4 bits each
//
// Mapping: a thread a row, 32 rows a workgroup.
override rows: u32 = 1;
override channels: u32 = 16;

struct Block {
  first: u32,
  channels: u32,
  carried_first: u32,
  factor_first: u32,
}

@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<storage, read_write> transposed: array<f32>;
@group(0) @binding(2) var<storage, read> factor: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> carried: array<f32>;
@group(0) @binding(4) var<storage, read> channel_groups: array<u32>;
@group(0) @binding(5) var<storage, read> grids: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> codes: array<u32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  for (var at = 0u; at < block.channels; at += 8u) {
    let low = round_four(at, row);
    codes[(block.first + at) / 8u * rows + row] = low | (round_four(at + 4u, row) << 16u);
  }
}

// Rounds four channels of a row; returns their codes.
fn round_four(at: u32, row: u32) -> u32 {
  var sums = take_four(at, row);
  for (var i = 0u; i < at; i++) { sums += transposed[(block.first + i) * rows + row] * factor_four(i, at); }
  let first = round_one(at, row, sums.x / factor_four(at, at).x);
  sums += first.error * factor_four(at, at);
  let second = round_one(at + 1u, row, sums.y / factor_four(at + 1u, at).y);
  sums += second.error * factor_four(at + 1u, at);
  let third = round_one(at + 2u, row, sums.z / factor_four(at + 2u, at).z);
  sums += third.error * factor_four(at + 2u, at);
  let fourth = round_one(at + 3u, row, sums.w / factor_four(at + 3u, at).w);
  return first.code | (second.code << 4u) | (third.code << 8u) | (fourth.code << 12u);
}

struct Rounded {
  code: u32,
  error: f32,
}

// Rounds a channel that the errors before it shift; its error takes its weight's place.
fn round_one(at: u32, row: u32, shift: f32) -> Rounded {
  let channel = block.first + at;
  let group = channel_groups[channel];
  let grid = grids[(group & 0xffffu) * rows + row];
  let weight = transposed[channel * rows + row];
  var code = 0.0;
  if (grid.y != 0.0) { code = clamp(floor((weight + shift - grid.x) / grid.y + 0.5), 0.0, f32(group >> 16u)); }
  let error = weight - (grid.x + code * grid.y);
  transposed[channel * rows + row] = error;
  return Rounded(u32(code), error);
}

// Four elements of row i of V, a channel of the block, from column `at` of the block on.
fn factor_four(i: u32, at: u32) -> vec4<f32> {
  return factor[(block.factor_first + i * channels + block.first + at) / 4u];
}

fn take_four(at: u32, row: u32) -> vec4<f32> {
  let first = (block.first - block.carried_first + at) * rows + row;
  let sums = vec4(carried[first], carried[first + rows], carried[first + 2u * rows], carried[first + 3u * rows]);
  carried[first] = 0.0;
  carried[first + rows] = 0.0;
  carried[first + 2u * rows] = 0.0;
  carried[first + 3u * rows] = 0.0;
  return sums;
}
