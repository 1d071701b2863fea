// needs: probe transposed_values
// What each group would be in 2 and in 4 bits, by itself (quant/probe.ts): the gain of refining it and both scales.
//
//   unit = span / 36, span = max(highest - lowest, 3 / 2.375 * the largest magnitude)
//   the best of scales 9..13 units (7..12 in 4 bits) and of the zeros next to the one that centres the codes
//
// Bindings (P = positions of groups in quantization order, G = groups with padding):
//   0 transposed       f32 [16 P, rows]
//   1 group_order  u32 [P]: the group at each position
//   2 prospects    f32 [3, G, rows]: error in 2 bits less that in 4, scale in 2 bits, scale in 4 bits
//
// Mapping: a thread a group, 64 rows a workgroup; workgroup.y is the position.
override rows: u32 = 1;
override groups: u32 = 8;

@group(0) @binding(0) var<storage, read> transposed: array<f32>;
@group(0) @binding(1) var<storage, read> group_order: array<u32>;
@group(0) @binding(2) var<storage, read_write> prospects: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  let weights = load_values(id.y, row);
  let bounds = bounds_of(weights);
  let unit = unit_of(bounds);
  let two_bit = probe(weights, bounds, unit, false);
  let four_bit = probe(weights, bounds, unit, true);
  let at = group_order[id.y] * rows + row;
  prospects[at] = two_bit.error - four_bit.error;
  prospects[groups * rows + at] = f32(two_bit.scale_code) * unit;
  prospects[2u * groups * rows + at] = f32(four_bit.scale_code) * unit;
}
