// needs: rows decode
// Packed activations of a workgroup's columns in workgroup memory, group by group, whence a lane takes half a block
// into registers, and single groups for refine words, whose group is only known at run time. fill_packed.wgsl or
// fill_values.wgsl brings them there.

// 1 where neighbouring lanes take neighbouring groups, which then lie side by side.
override cells_in_order: u32 = 0;

// Groups that one lane decodes.
const LANE_GROUPS = 4u;

struct Activations {
  hi0: vec4<u32>,
  hi1: vec4<u32>,
  hi2: vec4<u32>,
  hi3: vec4<u32>,
  lo0: vec4<u32>,
  lo1: vec4<u32>,
  lo2: vec4<u32>,
  lo3: vec4<u32>,
  // 512 times the step of each group.
  step512: vec4<f32>,
  sum: vec4<f32>,
  // ZERO_PLUS * sum - MAGIC.
  bias: vec4<f32>,
}

// Cells [column][group of a block][block of the column]: neighbouring lanes take neighbouring blocks, without bank
// conflicts. cell_sum holds 512 times the step of a group and its sum. Where activations are single bytes, nothing of
// cell_lo is used.
var<workgroup> cell_hi: array<vec4<u32>, cell_count>;
var<workgroup> cell_lo: array<vec4<u32>, max(1u, cell_count * (activation_bits / 8u - 1u))>;
var<workgroup> cell_sum: array<vec2<f32>, cell_count>;

// Cell of a group, counted from the first of the dispatch.
fn cell_of(group: u32) -> u32 {
  if (cells_in_order == 1u) { return group; }
  let in_column = group % (team * LANE_GROUPS);
  return cell_at(group / (team * LANE_GROUPS), in_column % 8u, in_column / 8u);
}

// Blocks of the upper half are swapped about, so that neighbouring lanes, which take both halves of the same blocks,
// meet in no memory bank.
fn cell_at(column: u32, group: u32, block: u32) -> u32 {
  return (column * 8u + group) * (team / 2u) + (block ^ (group / LANE_GROUPS * min(team / 4u, 4u)));
}

fn take_activations(lane: Lane) -> Activations {
  let blocks = team / 2u;
  let at = cell_of((lane.column * team + lane.lane) * LANE_GROUPS);
  let sums = vec4(cell_sum[at], cell_sum[at + blocks]);
  let more_sums = vec4(cell_sum[at + 2u * blocks], cell_sum[at + 3u * blocks]);
  var x: Activations;
  x.hi0 = cell_hi[at];
  x.hi1 = cell_hi[at + blocks];
  x.hi2 = cell_hi[at + 2u * blocks];
  x.hi3 = cell_hi[at + 3u * blocks];
  x.lo0 = cell_lo[at];
  x.lo1 = cell_lo[at + blocks];
  x.lo2 = cell_lo[at + 2u * blocks];
  x.lo3 = cell_lo[at + 3u * blocks];
  x.step512 = vec4(sums.xz, more_sums.xz);
  x.sum = vec4(sums.yw, more_sums.yw);
  x.bias = fma(x.sum, vec4(ZERO_PLUS), vec4(-MAGIC));
  return x;
}

// One activation, out of its cell; 0 for the channels of other dispatches.
fn activation(channel: u32) -> f32 {
  let group = channel / 16u - first_column * team * LANE_GROUPS;
  if (group >= columns * team * LANE_GROUPS) { return 0.0; }
  return activation_at(cell_of(group), channel);
}

fn activation_at(cell: u32, channel: u32) -> f32 {
  let shift = 24u - 8u * (channel / 4u % 4u);
  let hi = bitcast<i32>(cell_hi[cell][channel % 4u] << shift) >> 24u;
  let lo = bitcast<i32>(cell_lo[cell][channel % 4u] << shift) >> 24u;
  return value_of_bytes(hi, lo, channel) * (cell_sum[cell].x / 512.0);
}

// sum + (sum of code x - zero * sum of x) * scale.
fn multiply_group(
  word: u32,
  codes: u32,
  masks: CodeMasks,
  hi: vec4<u32>,
  lo: vec4<u32>,
  scale512: f32,
  x_sum: f32,
  bias: f32,
  sum: f32,
) -> f32 {
  let centred = fma(-zero_plus(codes, masks), x_sum, dot_codes(word, hi, lo) + bias);
  return fma(scale_of(codes, masks, scale512), centred, sum);
}

// A refined group's weights are (base + refine / 4 - zero4) scale with zero4 = 0.75 zero + 0.75, so beyond the
// base term it adds (refine / 4 + 0.25 zero - 0.75) scale.
fn refine_group(
  word: u32,
  codes: u32,
  masks: CodeMasks,
  hi: vec4<u32>,
  lo: vec4<u32>,
  scale512: f32,
  x_sum: f32,
) -> f32 {
  let dot = dot_codes(word, hi, lo) - MAGIC;
  let zero = fma(0.25, zero_plus(codes, masks), -0.25 * ZERO_PLUS - 0.75);
  return scale_of(codes, masks, scale512) * fma(zero, x_sum, 0.25 * dot);
}
