// needs: free_rounding transposed_values
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
  let low = min(min(weights[0], weights[1]), min(weights[2], weights[3]));
  let high = max(max(weights[0], weights[1]), max(weights[2], weights[3]));
  let bounds = vec2(min(min(low.x, low.y), min(low.z, low.w)), max(max(high.x, high.y), max(high.z, high.w)));
  let unit = max(bounds.y - bounds.x, max(bounds.y, -bounds.x) * (3.0 / 2.375)) / 36.0;
  let two_bit = probe(weights, bounds, unit, false);
  let four_bit = probe(weights, bounds, unit, true);
  let at = group_order[id.y] * rows + row;
  prospects[at] = two_bit.error - four_bit.error;
  prospects[groups * rows + at] = f32(two_bit.scale_code) * unit;
  prospects[2u * groups * rows + at] = f32(four_bit.scale_code) * unit;
}

fn probe(weights: Values, bounds: vec2<f32>, unit: f32, is_refined: bool) -> Choice {
  var best = Choice(rounding_error(weights, make_grid(0.0, 0u, is_refined)), 0u, 0u);
  let first = select(9u, 7u, is_refined);
  let last = select(13u, 12u, is_refined);
  let reach = select(1u, 2u, is_refined);
  let middle = 0.5 * (bounds.x + bounds.y);
  for (var scale_code = first; scale_code <= last; scale_code++) {
    let scale = f32(scale_code) * unit;
    let centred = nearest_zero(middle, scale, is_refined);
    let last_zero = min(ZERO_CODES - 1u, centred + reach);
    for (var zero_code = max(centred, reach) - reach; zero_code <= last_zero; zero_code++) {
      let error = rounding_error(weights, make_grid(scale, zero_code, is_refined));
      if (error < best.error) { best = Choice(error, scale_code, zero_code); }
    }
  }
  // Beyond f16 whichever code it is; the errors of such weights may overflow, and none is then the least.
  if (unit > 1.0e6) { best.scale_code = last; }
  return best;
}

// Code of the zero that puts the middle of the weights amid the codes.
fn nearest_zero(middle: f32, scale: f32, is_refined: bool) -> u32 {
  let wanted = select(1.5, 1.875, is_refined) - middle / scale;
  let code = floor((wanted - select(0.625, 1.21875, is_refined)) / select(0.25, 0.1875, is_refined) + 0.5);
  return u32(clamp(code, 0.0, f32(ZERO_CODES - 1u)));
}
