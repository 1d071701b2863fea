// needs: probe transposed_values
// The weight of each group that may become an outlier, the one furthest from the group's mean, and what that would gain
// (quant/outliers.ts).
//
//   gain = the fall of the group's probed error without the weight, or, by magnitude, its distance from the mean
//
// Bindings (P = positions of groups in quantization order, G = groups with padding):
//   0 transposed   f32 [16 P, rows]
//   1 group_order  u32 [P]: the group at each position
//   2 picks        u32 [runs, rows]: see pick_refined.wgsl
//   3 candidates   u32 [2, G, rows]: the gain as a number that sorts as it does, 0 where there may be no outlier; then
//                  the scale that the group wants without the weight, f32
//   4 group_codes  u32 [G, rows]: receives one more than the weight's place in the group, in bits 7 to 11
//
// Mapping: a thread a group, 64 rows a workgroup; workgroup.y is the position.
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none
override in_two_bit: u32 = 1; // whether groups of 2 bits may have one
override in_refined: u32 = 0; // and refined groups
override by_magnitude: u32 = 0;

@group(0) @binding(0) var<storage, read> transposed: array<f32>;
@group(0) @binding(1) var<storage, read> group_order: array<u32>;
@group(0) @binding(2) var<storage, read> picks: array<u32>;
@group(0) @binding(3) var<storage, read_write> candidates: array<u32>;
@group(0) @binding(4) var<storage, read_write> group_codes: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  let group = group_order[id.y];
  let is_refined = is_picked(group, row);
  if (select(in_two_bit, in_refined, is_refined) == 0u) { return; }
  let weights = load_values(id.y, row);
  let bounds = bounds_of(weights);
  if (bounds.x == bounds.y) { return; }
  let error = probe(weights, bounds, unit_of(bounds), is_refined).error;
  let distance = mark_extreme(weights);
  let rest = bounds_of(weights);
  let unit = unit_of(rest);
  let without = probe(weights, rest, unit, is_refined);
  let at = group * rows + row;
  candidates[at] = sortable(select(error - without.error, distance, by_magnitude != 0u));
  candidates[groups * rows + at] = bitcast<u32>(f32(without.scale_code) * unit);
  group_codes[at] = (firstTrailingBit(outlier_mask) + 1u) << 7u;
}

fn is_picked(group: u32, row: u32) -> bool {
  if (refine_every == 0u) { return false; }
  let run = group / max(refine_every, 1u);
  return run * refine_every + picks[run * rows + row] == group;
}

// Makes the weight furthest from the mean the group's outlier, the first of equal ones; returns how far it is.
fn mark_extreme(weights: Values) -> f32 {
  let sums = weights[0] + weights[1] + weights[2] + weights[3];
  let mean = ((sums.x + sums.y) + (sums.z + sums.w)) / 16.0;
  var furthest = -1.0;
  for (var four = 0u; four < 4u; four++) {
    let distances = abs(weights[four] - mean);
    for (var k = 0u; k < 4u; k++) {
      if (distances[k] > furthest) {
        furthest = distances[k];
        outlier_mask = 1u << (4u * four + k);
      }
    }
  }
  return furthest;
}

// Bits that sort as numbers do; never 0.
fn sortable(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, max(~bits, 1u), (bits >> 31u) == 1u);
}
