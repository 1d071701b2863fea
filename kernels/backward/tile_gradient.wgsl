// needs: group coded_scales
// Gradients of the second-order scales d of a packed matrix, made of those of its weights, which are cleared for the
// next sum:
//
//   gradient[tile, g] += sum over the tile's 16 rows r and the 16 channels c of group g of dw[r, c] * w[r, c]
//
// That is the gradient of the logarithm of d, as w is proportional to d. Outliers' residuals are no part of it.
//
// Bindings (H = half_blocks, G = 4 H groups in a row):
//   0 base             u32 [rows, G]            2 bits x 16 channels
//   1 refine           u32 [steps, words, 4]    2 bits x 16 channels of each refined group
//   2 meta_words       u32 [steps, H, 4]        |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   3 tile_scale       u32 [tiles, S / 2]       d of two groups, f16 each; S = G in whole blocks
//   4 weight_gradient  vec4<f32> [first_row + rows or more, 4 * groups]
//   5 gradient         f32 [tiles, S]
//
// Mapping: a workgroup of 256 threads takes 16 groups of a tile, a thread a group of a row.
override rows: u32 = 1;
override first_row: u32 = 0;
override groups: u32 = 1; // without padding
override half_blocks: u32 = 2;
override refine_every: u32 = 8; // 0 for none

@group(0) @binding(0) var<storage, read> base: array<u32>;
@group(0) @binding(1) var<storage, read> refine: array<u32>;
@group(0) @binding(2) var<storage, read> meta_words: array<u32>;
@group(0) @binding(4) var<storage, read_write> weight_gradient: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;

const TILE_ROWS = 16u;

// [row of the tile][group of the workgroup]
var<workgroup> row_sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let group = 16u * workgroup.x + thread % 16u;
  let row = TILE_ROWS * workgroup.y + thread / 16u;
  var sum = 0.0;
  if (row < rows && group < groups) { sum = take_group(row, group, code_masks(workgroup.z)); }
  row_sums[thread] = sum;
  workgroupBarrier();
  if (thread >= 16u || group >= groups) { return; }
  for (var i = 1u; i < TILE_ROWS; i++) { sum += row_sums[16u * i + thread]; }
  gradient[workgroup.y * ((half_blocks + 1u) / 2u * 8u) + group] += sum;
}

// The sum over a group of a row, whose gradients are cleared.
fn take_group(row: u32, index: u32, masks: CodeMasks) -> f32 {
  let group = decode(row, index, masks);
  let at = ((first_row + row) * groups + index) * 4u;
  var sum = 0.0;
  for (var i = 0u; i < 4u; i++) {
    sum += dot(weight_gradient[at + i], four_weights(group, 8u * i));
    weight_gradient[at + i] = vec4(0.0);
  }
  return sum;
}

// Four weights of a group, whose codes begin at a bit. Codes become floats in the mantissa of 2^23, as in
// product/parts/decode.wgsl.
fn four_weights(group: Group, bit: u32) -> vec4<f32> {
  let shifts = vec4(bit) + vec4(0u, 2u, 4u, 6u);
  let base_codes = (vec4(group.word) >> shifts) & vec4(3u);
  let fine_codes = (vec4(group.fine) >> shifts) & vec4(3u);
  let codes = bitcast<vec4<f32>>((base_codes * 4u + fine_codes) | vec4(0x4b000000u)) - vec4(8388608.0);
  return (0.25 * codes - vec4(group.zero)) * group.scale;
}
