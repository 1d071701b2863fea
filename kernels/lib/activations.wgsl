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

struct Cell {
  hi: vec4<u32>,
  lo: vec4<u32>,
  step128: f32,
  quarter_sum: f32,
  bias: f32,
}

// [column][group of a block][block of the column]: neighbouring lanes take neighbouring blocks, without bank conflicts.
var<workgroup> cells: array<Cell, columns * team * LANE_GROUPS>;

fn load_activations(lane: Lane) -> Activations {
  let at = lane.half_block;
  var x: Activations;
  x.hi0 = activations[at];
  x.hi1 = activations[half_blocks + at];
  x.hi2 = activations[2u * half_blocks + at];
  x.hi3 = activations[3u * half_blocks + at];
  x.lo0 = activations[4u * half_blocks + at];
  x.lo1 = activations[5u * half_blocks + at];
  x.lo2 = activations[6u * half_blocks + at];
  x.lo3 = activations[7u * half_blocks + at];
  let is_used = at < half_blocks;
  x.step128 = select(vec4(0.0), bitcast<vec4<f32>>(activations[8u * half_blocks + at]), is_used);
  x.sum = select(vec4(0.0), bitcast<vec4<f32>>(activations[9u * half_blocks + at]), is_used);
  x.bias = fma(x.sum, vec4(ZERO_PLUS), vec4(-MAGIC));
  return x;
}

fn store_cells(x: Activations, lane: Lane) {
  let blocks = team / 2u;
  let at = (lane.column * 8u + lane.lane % 2u * LANE_GROUPS) * blocks + lane.lane / 2u;
  cells[at] = cell_of(x.hi0, x.lo0, x.step128.x, x.sum.x);
  cells[at + blocks] = cell_of(x.hi1, x.lo1, x.step128.y, x.sum.y);
  cells[at + 2u * blocks] = cell_of(x.hi2, x.lo2, x.step128.z, x.sum.z);
  cells[at + 3u * blocks] = cell_of(x.hi3, x.lo3, x.step128.w, x.sum.w);
}

fn cell_of(hi: vec4<u32>, lo: vec4<u32>, step128: f32, sum: f32) -> Cell {
  return Cell(hi, lo, step128, 0.25 * sum, fma(-0.25 * ZERO_PLUS - 0.75, sum, -0.25 * MAGIC));
}

// One activation, out of its cell; 0 for the channels of other dispatches.
fn activation(channel: u32) -> f32 {
  let group = channel / 16u - first_column * team * LANE_GROUPS;
  let in_column = group % (team * LANE_GROUPS);
  let at = (group / (team * LANE_GROUPS) * 8u + in_column % 8u) * (team / 2u) + in_column / 8u;
  if (group >= columns * team * LANE_GROUPS) { return 0.0; }
  let shift = 24u - 8u * (channel / 4u % 4u);
  let hi = bitcast<i32>(cells[at].hi[channel % 4u] << shift) >> 24u;
  let lo = bitcast<i32>(cells[at].lo[channel % 4u] << shift) >> 24u;
  let unit = select(1.0, 4.0, channel % 2u == 1u);
  return f32(255 * hi + lo) * unit * (cells[at].step128 / 128.0);
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
// base term it adds (refine / 4 + 0.25 zero - 0.75) scale. `group` counts from the start of the column.
fn refine_group(word: u32, codes: u32, d: f32, group: u32, lane: Lane) -> f32 {
  let cell = cells[(lane.column * 8u + group % 8u) * (team / 2u) + group / 8u];
  let dot = fma(0.25, dot_codes(word, cell.hi, cell.lo), cell.bias);
  return scale_of(codes, lane.masks, cell.step128 * d) * fma(zero_plus(codes, lane.masks), cell.quarter_sum, dot);
}
