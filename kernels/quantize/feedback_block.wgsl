// needs: pulled_rounding transposed_values write_group
// Error feedback through a block of channels (quant/error_feedback.ts, quant/twobit.ts): group after group in the order
// of quantization, each searched when its turn comes, on weights that carry the errors of the groups before.
//
//   start[k] = w[k] + (sum over earlier channels i of e[i] V[i, k]) / V[k, k],  e[i] = w[i] - q[i]
//   within the group: weight k is rounded from start[k] + sum over j < k of e[j] pull[j, k],  pull[j, k] = V[j, k] / V[k, k]
//   the best codes leave the least sum of (V[k, k] * rounding error)^2
//
// Bindings (C = channels in quantization order, G = groups with padding):
//   0 block        uniform: first channel of the block, its channels (a multiple of 16), first channel of `carried`, the
//                  element of `factor` at which the block's first row begins
//   1 transposed       f32 [C, rows]: w, which e replaces
//   2 group_order  u32 [C / 16]: the group at each position
//   3 picks        u32 [runs, rows]: see pick_refined.wgsl
//   4 tile_scale   u32 [tiles, S / 2]: d of two groups, f16 each; S = G in whole blocks
//   5 factor       vec4<f32> rows of C / 4: V in the upper triangle
//   6 carried      f32 [some channels, rows]: sum over the channels i before the block of e[i] V[i, k], zeroed when read
//   7 base         u32 [rows, G]      2 bits x 16 channels
//   8 refine       u32 [rows / 4, runs, 4]  2 bits x 16 channels of each refined group
//   9 group_codes  u32 [G, rows]      scale code 4b, zero code 3b, outlier: see pick_outliers.wgsl
//
// Mapping: a thread a row, 32 rows a workgroup, so that few rows still spread over the device. What all rows share, the
// pulls within a group, lies in workgroup memory (quantize/parts/pulled_rounding.wgsl).
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none
override channels: u32 = 16;

struct Block {
  first: u32,
  channels: u32,
  carried_first: u32,
  factor_first: u32,
}

@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<storage, read_write> transposed: array<f32>;
@group(0) @binding(2) var<storage, read> group_order: array<u32>;
@group(0) @binding(3) var<storage, read> picks: array<u32>;
@group(0) @binding(4) var<storage, read> tile_scale: array<u32>;
@group(0) @binding(5) var<storage, read> factor: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> carried: array<f32>;
@group(0) @binding(7) var<storage, read_write> base: array<u32>;
@group(0) @binding(8) var<storage, read_write> refine: array<u32>;
@group(0) @binding(9) var<storage, read_write> group_codes: array<u32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  for (var at = 0u; at < block.channels; at += 16u) {
    workgroupBarrier();
    share_pulls(block.first + at, thread);
    share_pulls(block.first + at, thread + 32u);
    workgroupBarrier();
    if (id.x < rows) { quantize_group(at, id.x); }
  }
}

// One of 16 x 4 fours of pulls.
fn share_pulls(first: u32, index: u32) {
  let j = index / 4u;
  let four = index % 4u;
  let k = 4u * four;
  let pivot = vec4(
    factor_row(first + k, first)[four].x,
    factor_row(first + k + 1u, first)[four].y,
    factor_row(first + k + 2u, first)[four].z,
    factor_row(first + k + 3u, first)[four].w,
  );
  let pull = factor_row(first + j, first)[four] / pivot;
  pulls[j][four] = select(vec4(0.0), pull, vec4(k, k + 1u, k + 2u, k + 3u) > vec4(j));
  if (j == 0u) { pivots[four] = pivot; }
}

// 16 elements of row i of V, a channel of the block, from column `first` on.
fn factor_row(i: u32, first: u32) -> Values {
  let at = (block.factor_first + (i - block.first) * channels + first) / 4u;
  return Values(factor[at], factor[at + 1u], factor[at + 2u], factor[at + 3u]);
}

fn quantize_group(at: u32, row: u32) {
  let position = (block.first + at) / 16u;
  let place = place_group(group_order[position], row);
  let weights = load_values(position, row);
  let start = carry_errors(at, row, weights);
  let choice = search(start, place);
  let grid = make_grid(f32(choice.scale_code) * place.d, choice.zero_code, place.is_refined);
  var wanted = start;
  settle(&wanted, grid);
  let residual = write_group(place, choice, wanted, grid);
  write_errors(at, row, weights[0] - stored_values(0u, wanted[0], grid, residual));
  write_errors(at + 4u, row, weights[1] - stored_values(1u, wanted[1], grid, residual));
  write_errors(at + 8u, row, weights[2] - stored_values(2u, wanted[2], grid, residual));
  write_errors(at + 12u, row, weights[3] - stored_values(3u, wanted[3], grid, residual));
}

fn write_errors(at: u32, row: u32, values: vec4<f32>) {
  let first = (block.first + at) * rows + row;
  transposed[first] = values.x;
  transposed[first + rows] = values.y;
  transposed[first + 2u * rows] = values.z;
  transposed[first + 3u * rows] = values.w;
}

// What the weights of a group are rounded from if none of them is changed by rounding: from there, settle() takes away
// what each rounded weight pulls, so that in the end its error has been passed on.
fn carry_errors(at: u32, row: u32, weights: Values) -> Values {
  let first = (block.first - block.carried_first + at) * rows + row;
  var sums = Values(
    take_four(first),
    take_four(first + 4u * rows),
    take_four(first + 8u * rows),
    take_four(first + 12u * rows),
  );
  for (var i = 0u; i < at; i++) {
    let error = transposed[(block.first + i) * rows + row];
    let pull = factor_row(block.first + i, block.first + at);
    sums[0] += error * pull[0];
    sums[1] += error * pull[1];
    sums[2] += error * pull[2];
    sums[3] += error * pull[3];
  }
  var start = Values(
    weights[0] + sums[0] / pivots[0],
    weights[1] + sums[1] / pivots[1],
    weights[2] + sums[2] / pivots[2],
    weights[3] + sums[3] / pivots[3],
  );
  for (var j = 0u; j < 16u; j++) { pull_from(0u, pulls[j], -transposed[(block.first + at + j) * rows + row], &start); }
  return start;
}

fn take_four(at: u32) -> vec4<f32> {
  let sums = vec4(carried[at], carried[at + rows], carried[at + 2u * rows], carried[at + 3u * rows]);
  carried[at] = 0.0;
  carried[at + rows] = 0.0;
  carried[at + 2u * rows] = 0.0;
  carried[at + 3u * rows] = 0.0;
  return sums;
}
