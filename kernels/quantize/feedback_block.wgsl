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
// Mapping: 16 rows a workgroup, 16 threads a row, of which each carries errors to its channel of a group, then tries its
// scale code; the first writes the best. Neighbouring threads have neighbouring rows. What all rows share, the pulls
// within a group, lies in workgroup memory (quantize/parts/pulled_rounding.wgsl), as do the errors of the block.
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

const TILE_ROWS = 16u;

// [channel of the block][row].
var<workgroup> errors: array<array<f32, 16>, 128>;
// [channel of the group][row]: weights, and what they are rounded from.
var<workgroup> group_weights: array<array<f32, 16>, 16>;
var<workgroup> starts: array<array<f32, 16>, 16>;
// [scale code][row].
var<workgroup> choices: array<array<Choice, 16>, 16>;

// A thread's row, of the matrix and of the workgroup. Behind the last one are some that read as the last and write nothing.
struct Own {
  row: u32,
  tile_row: u32,
  is_row: bool,
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = workgroup.x * TILE_ROWS + thread % TILE_ROWS;
  let own = Own(min(row, rows - 1u), thread % TILE_ROWS, row < rows);
  let lane = thread / TILE_ROWS;
  for (var at = 0u; at < block.channels; at += 16u) {
    let place = place_group(group_order[(block.first + at) / 16u], own.row);
    workgroupBarrier();
    if (thread < 64u) { share_pulls(block.first + at, thread); }
    group_weights[lane][own.tile_row] = transposed[(block.first + at + lane) * rows + own.row];
    workgroupBarrier();
    starts[lane][own.tile_row] = carry_errors(at, lane, own);
    workgroupBarrier();
    let start = starts_of(own.tile_row);
    choices[lane][own.tile_row] = search_zeros(start, place, lane);
    workgroupBarrier();
    if (lane == 0u && own.is_row) { quantize_group(at, own, place, start); }
  }
}

fn starts_of(tile_row: u32) -> Values {
  return Values(
    four_starts(0u, tile_row),
    four_starts(4u, tile_row),
    four_starts(8u, tile_row),
    four_starts(12u, tile_row),
  );
}

fn four_starts(first: u32, tile_row: u32) -> vec4<f32> {
  return vec4(
    starts[first][tile_row],
    starts[first + 1u][tile_row],
    starts[first + 2u][tile_row],
    starts[first + 3u][tile_row],
  );
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

// Rounds a group by the best choice of all scale codes; its errors take its weights' place.
fn quantize_group(at: u32, own: Own, place: GroupPlace, start: Values) {
  var choice = choices[0][own.tile_row];
  for (var i = 1u; i < SCALE_CODES; i++) { choice = better(choice, choices[i][own.tile_row]); }
  let grid = make_grid(f32(choice.scale_code) * place.d, choice.zero_code, place.is_refined);
  var wanted = start;
  settle(&wanted, grid);
  let residual = write_group(place, choice, wanted, grid);
  let weights = load_values((block.first + at) / 16u, own.row);
  write_errors(at, own, weights[0] - stored_values(0u, wanted[0], grid, residual));
  write_errors(at + 4u, own, weights[1] - stored_values(1u, wanted[1], grid, residual));
  write_errors(at + 8u, own, weights[2] - stored_values(2u, wanted[2], grid, residual));
  write_errors(at + 12u, own, weights[3] - stored_values(3u, wanted[3], grid, residual));
}

fn write_errors(at: u32, own: Own, values: vec4<f32>) {
  for (var i = 0u; i < 4u; i++) {
    errors[at + i][own.tile_row] = values[i];
    transposed[(block.first + at + i) * rows + own.row] = values[i];
  }
}

// What a weight of a group is rounded from if none of them is changed by rounding: from there, settle() takes away what
// each rounded weight pulls, so that in the end its error has been passed on.
fn carry_errors(at: u32, channel: u32, own: Own) -> f32 {
  let column = block.first + at + channel;
  let carried_at = (column - block.carried_first) * rows + own.row;
  var sum = carried[carried_at];
  if (own.is_row) { carried[carried_at] = 0.0; }
  // Eight at a time: their loads don't wait for each other.
  for (var i = 0u; i < at; i += 8u) {
    let low = factor_column(i, column);
    let high = factor_column(i + 4u, column);
    sum = add_errors(i, own.tile_row, low, sum);
    sum = add_errors(i + 4u, own.tile_row, high, sum);
  }
  var start = group_weights[channel][own.tile_row] + sum / pivots[channel / 4u][channel % 4u];
  for (var j = 0u; j < channel; j++) {
    start += group_weights[j][own.tile_row] * pulls[j][channel / 4u][channel % 4u];
  }
  return start;
}

fn add_errors(i: u32, tile_row: u32, factors: vec4<f32>, before: f32) -> f32 {
  var sum = before;
  sum += errors[i][tile_row] * factors.x;
  sum += errors[i + 1u][tile_row] * factors.y;
  sum += errors[i + 2u][tile_row] * factors.z;
  sum += errors[i + 3u][tile_row] * factors.w;
  return sum;
}

fn factor_column(i: u32, column: u32) -> vec4<f32> {
  return vec4(
    factor_element(i, column),
    factor_element(i + 1u, column),
    factor_element(i + 2u, column),
    factor_element(i + 3u, column),
  );
}

// Of the block's row i of V.
fn factor_element(i: u32, column: u32) -> f32 {
  let at = block.factor_first + i * channels + column;
  return factor[at / 4u][at % 4u];
}
