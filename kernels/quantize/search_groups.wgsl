// needs: weighted_rounding transposed_values write_group
// Quantizes every group by itself: of all scale and zero codes those that leave the least error
// (quant/group_search.ts), the sum of channel_weights[c] * error[c]^2.
//
// Bindings (P = positions of groups, G = groups with padding):
//   0 transposed       f32 [16 P, rows]
//   1 group_order  u32 [P]: the group at each position
//   2 picks        u32 [runs, rows]: see pick_refined.wgsl
//   3 tile_scale   u32 [tiles, S / 2]: d of two groups, f16 each; S = G in whole blocks
//   4 base         u32 [rows, G]       2 bits x 16 channels
//   5 refine       u32 [rows / 4, runs, 4]  2 bits x 16 channels of each refined group
//   6 group_codes  u32 [G, rows]       scale code 4b, zero code 3b, outlier: see pick_outliers.wgsl
//   7 channel_weights  f32 [16 P]: how much each channel counts, in its natural order
//
// Mapping: a thread a group, 64 rows a workgroup; workgroup.y is the position. Among equal errors the lowest scale code
// and then the lowest zero code win; the CPU tries likely codes first, so where errors tie its choice may be another.
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none

@group(0) @binding(0) var<storage, read> transposed: array<f32>;
@group(0) @binding(1) var<storage, read> group_order: array<u32>;
@group(0) @binding(2) var<storage, read> picks: array<u32>;
@group(0) @binding(3) var<storage, read> tile_scale: array<u32>;
@group(0) @binding(4) var<storage, read_write> base: array<u32>;
@group(0) @binding(5) var<storage, read_write> refine: array<u32>;
@group(0) @binding(6) var<storage, read_write> group_codes: array<u32>;
@group(0) @binding(7) var<storage, read> channel_weights: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows) { return; }
  let group = group_order[id.y];
  for (var four = 0u; four < 4u; four++) { importance[four] = channel_weights[4u * group + four]; }
  let place = place_group(group, row);
  let weights = load_values(id.y, row);
  let choice = search(weights, place);
  let grid = make_grid(f32(choice.scale_code) * place.d, choice.zero_code, place.is_refined);
  write_group(place, choice, weights, grid);
}
