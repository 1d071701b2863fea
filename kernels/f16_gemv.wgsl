// Matrix-vector product with f16 weights, the baseline: y[r] = sum over c of w[r, c] x[c], summed in f32.
//
// Bindings (C = chunks of 8 channels in a row):
//   0 weights  vec4<u32> [rows, C]   8 f16, channel 0 in the low half of the first word
//   1 x        vec4<u32> [C]         8 f16
//   2 y        f32 [rows]
//
// Mapping: one workgroup is one team (a subgroup) and takes two rows; its lanes read neighbouring chunks. Two chunks of
// both rows are in flight at once. Many small workgroups let the device balance the load by itself: with four teams in
// a workgroup an H200 was a tenth slower.
override rows: u32 = 1;
override chunks: u32 = 1;
override team: u32 = 32;
override workgroup_size: u32 = 32; // = team
override add_to_y: u32 = 0; // 1: y += W x

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (workgroup.y * count.x + workgroup.x) * 2u;
  let start0 = min(row, rows - 1u) * chunks;
  let start1 = min(row + 1u, rows - 1u) * chunks;
  var sums = vec2(0.0);
  for (var chunk = lane; chunk < chunks; chunk += 2u * team) {
    // Past the end of a row the second chunk is chunk 0 again, left out of the sum.
    let has_second = chunk + team < chunks;
    let second = select(0u, chunk + team, has_second);
    let a0 = weights[start0 + chunk];
    let a1 = weights[start1 + chunk];
    let b0 = weights[start0 + second];
    let b1 = weights[start1 + second];
    sums += dot_chunks(a0, a1, x[chunk]);
    sums += select(vec2(0.0), dot_chunks(b0, b1, x[second]), has_second);
  }
  let sum0 = sum_strided(sums.x, lane, 1u, team);
  let sum1 = sum_strided(sums.y, lane, 1u, team);
  if (lane == 0u && row < rows) { write_row(row, sum0); }
  if (lane == 0u && row + 1u < rows) { write_row(row + 1u, sum1); }
}

fn write_row(row: u32, sum: f32) {
  if (add_to_y == 1u) { y[row] += sum; } else { y[row] = sum; }
}

fn dot_chunks(w0: vec4<u32>, w1: vec4<u32>, packed_x: vec4<u32>) -> vec2<f32> {
  let low = vec4(unpack2x16float(packed_x.x), unpack2x16float(packed_x.y));
  let high = vec4(unpack2x16float(packed_x.z), unpack2x16float(packed_x.w));
  return vec2(dot_chunk(w0, low, high), dot_chunk(w1, low, high));
}

fn dot_chunk(w: vec4<u32>, x_low: vec4<f32>, x_high: vec4<f32>) -> f32 {
  let low = vec4(unpack2x16float(w.x), unpack2x16float(w.y));
  let high = vec4(unpack2x16float(w.z), unpack2x16float(w.w));
  return dot(low, x_low) + dot(high, x_high);
}
