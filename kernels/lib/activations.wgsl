// Packed activations of a lane: half a block, kept in registers, and the same by group in workgroup memory for refine
// words, whose group is only known at run time. Needs `team`, `columns`, `half_blocks`, `activations`, `Lane`.

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
  // 128 times the step of each group, 0 beyond the end of the row.
  step128: vec4<f32>,
  sum: vec4<f32>,
  // ZERO_PLUS * sum - MAGIC.
  bias: vec4<f32>,
}

// Cells [column][group of a block][block of the column]: neighbouring lanes take neighbouring blocks, without bank
// conflicts. cell_sum holds 128 times the step of a group and its sum.
var<workgroup> cell_hi: array<vec4<u32>, columns * team * LANE_GROUPS>;
var<workgroup> cell_lo: array<vec4<u32>, columns * team * LANE_GROUPS>;
var<workgroup> cell_sum: array<vec2<f32>, columns * team * LANE_GROUPS>;

fn load_activations(lane: Lane) -> Activations {
  let at = lane.token * 10u * half_blocks + lane.half_block;
  var x: Activations;
  x.hi0 = activations[at];
  x.hi1 = activations[at + half_blocks];
  x.hi2 = activations[at + 2u * half_blocks];
  x.hi3 = activations[at + 3u * half_blocks];
  x.lo0 = activations[at + 4u * half_blocks];
  x.lo1 = activations[at + 5u * half_blocks];
  x.lo2 = activations[at + 6u * half_blocks];
  x.lo3 = activations[at + 7u * half_blocks];
  let is_used = lane.half_block < half_blocks;
  x.step128 = select(vec4(0.0), bitcast<vec4<f32>>(activations[at + 8u * half_blocks]), is_used);
  x.sum = select(vec4(0.0), bitcast<vec4<f32>>(activations[at + 9u * half_blocks]), is_used);
  x.bias = fma(x.sum, vec4(ZERO_PLUS), vec4(-MAGIC));
  return x;
}

fn store_cells(x: Activations, lane: Lane) {
  let blocks = team / 2u;
  let at = (lane.column * 8u + lane.lane % 2u * LANE_GROUPS) * blocks + lane.lane / 2u;
  store_cell(at, x.hi0, x.lo0, x.step128.x, x.sum.x);
  store_cell(at + blocks, x.hi1, x.lo1, x.step128.y, x.sum.y);
  store_cell(at + 2u * blocks, x.hi2, x.lo2, x.step128.z, x.sum.z);
  store_cell(at + 3u * blocks, x.hi3, x.lo3, x.step128.w, x.sum.w);
}

fn store_cell(at: u32, hi: vec4<u32>, lo: vec4<u32>, step128: f32, sum: f32) {
  cell_hi[at] = hi;
  cell_lo[at] = lo;
  cell_sum[at] = vec2(step128, sum);
}

// One activation, out of its cell; 0 for the channels of other dispatches.
fn activation(channel: u32) -> f32 {
  let group = channel / 16u - first_column * team * LANE_GROUPS;
  let in_column = group % (team * LANE_GROUPS);
  let at = (group / (team * LANE_GROUPS) * 8u + in_column % 8u) * (team / 2u) + in_column / 8u;
  if (group >= columns * team * LANE_GROUPS) { return 0.0; }
  let shift = 24u - 8u * (channel / 4u % 4u);
  let hi = bitcast<i32>(cell_hi[at][channel % 4u] << shift) >> 24u;
  let lo = bitcast<i32>(cell_lo[at][channel % 4u] << shift) >> 24u;
  let unit = select(1.0, 4.0, channel % 2u == 1u);
  return f32(255 * hi + lo) * unit * (cell_sum[at].x / 128.0);
}

// sum + (sum of code x - zero * sum of x) * scale.
fn multiply_group(
  word: u32,
  codes: u32,
  masks: CodeMasks,
  hi: vec4<u32>,
  lo: vec4<u32>,
  scale128: f32,
  x_sum: f32,
  bias: f32,
  sum: f32,
) -> f32 {
  let centred = fma(-zero_plus(codes, masks), x_sum, dot_codes(word, hi, lo) + bias);
  return fma(scale_of(codes, masks, scale128), centred, sum);
}

// A refined group's weights are (base + refine / 4 - zero4) scale with zero4 = 0.75 zero + 0.75, so beyond the
// base term it adds (refine / 4 + 0.25 zero - 0.75) scale.
fn refine_group(word: u32, codes: u32, d: f32, cell: u32, masks: CodeMasks) -> f32 {
  let step_sum = cell_sum[cell];
  let dot = dot_codes(word, cell_hi[cell], cell_lo[cell]) - MAGIC;
  let zero = fma(0.25, zero_plus(codes, masks), -0.25 * ZERO_PLUS - 0.75);
  return scale_of(codes, masks, step_sum.x * d) * fma(zero, step_sum.y, 0.25 * dot);
}
