// Matrix-vector product with f16 weights, the baseline: y[r] = sum over c of w[r, c] x[c], summed in f32.
//
// Bindings (C = chunks of 8 channels in a row):
//   0 weights  vec4<u32> [rows, C]    8 f16, channel 0 in the low half of the first word
//   1 x        f16 or f32 [tokens, 8 C], see lib/half_chunks.wgsl and lib/float_chunks.wgsl
//   2 y        f32 [tokens, token_rows], of which `rows` (silu_product: half as many) are written
//
// Mapping: one workgroup is one team (a subgroup) and takes two rows, for silu_product a gate row and its up row; its
// lanes read neighbouring chunks. Four chunks of both rows are in flight at once. Many small workgroups let the device
// balance the load by itself: with four teams in a workgroup an H200 was a tenth slower. workgroup.z is the token.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
override y_row: u32 = 0; // of row 0, where a matrix is one of several that make y
override chunks: u32 = 1;
override team: u32 = 32;
override workgroup_size: u32 = 32; // = team
override output_kind: u32 = 0; // see lib/outputs.wgsl

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let pair = workgroup.y * count.x + workgroup.x;
  let is_product = output_kind == SILU_PRODUCT;
  let row0 = select(2u * pair, pair, is_product);
  let row1 = select(2u * pair + 1u, rows / 2u + pair, is_product);
  let sums = dot_rows(min(row0, rows - 1u) * chunks, min(row1, rows - 1u) * chunks, workgroup.z, lane);
  let factor = input_factor(sum_strided(sums.z, lane, 1u, team));
  let sum0 = factor * sum_strided(sums.x, lane, 1u, team);
  let sum1 = factor * sum_strided(sums.y, lane, 1u, team);
  let first = workgroup.z * token_rows + y_row;
  if (is_product) {
    if (lane == 0u && row1 < rows) { y[first + row0] = silu_product(sum0, sum1); }
  } else {
    if (lane == 0u && row0 < rows) { write_row(first + row0, sum0); }
    if (lane == 0u && row1 < rows) { write_row(first + row1, sum1); }
  }
}

// 8 channels of the input, and the sum of their squares where a norm needs it.
struct Chunk {
  low: vec4<f32>,
  high: vec4<f32>,
  squares: f32,
}

// A lane's share of the products of two rows with a token, and of the sum of the token's squares.
fn dot_rows(start0: u32, start1: u32, token: u32, lane: u32) -> vec3<f32> {
  var sums = vec3(0.0);
  for (var chunk = lane; chunk < chunks; chunk += 4u * team) {
    let wanted = vec4(chunk) + vec4(0u, 1u, 2u, 3u) * team;
    // Past the end of a row a chunk is the last again, left out of the sum.
    let at = min(wanted, vec4(chunks - 1u));
    let is_own = wanted < vec4(chunks);
    let a0 = weights[start0 + at.x];
    let a1 = weights[start1 + at.x];
    let b0 = weights[start0 + at.y];
    let b1 = weights[start1 + at.y];
    let c0 = weights[start0 + at.z];
    let c1 = weights[start1 + at.z];
    let d0 = weights[start0 + at.w];
    let d1 = weights[start1 + at.w];
    sums += dot_chunks(a0, a1, load_chunk(token, at.x));
    sums += select(vec3(0.0), dot_chunks(b0, b1, load_chunk(token, at.y)), is_own.y);
    sums += select(vec3(0.0), dot_chunks(c0, c1, load_chunk(token, at.z)), is_own.z);
    sums += select(vec3(0.0), dot_chunks(d0, d1, load_chunk(token, at.w)), is_own.w);
  }
  return sums;
}

fn write_row(at: u32, sum: f32) {
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}

fn dot_chunks(w0: vec4<u32>, w1: vec4<u32>, x: Chunk) -> vec3<f32> {
  return vec3(dot_chunk(w0, x), dot_chunk(w1, x), x.squares);
}

fn dot_chunk(w: vec4<u32>, x: Chunk) -> f32 {
  let low = vec4(unpack2x16float(w.x), unpack2x16float(w.y));
  let high = vec4(unpack2x16float(w.z), unpack2x16float(w.w));
  return dot(low, x.low) + dot(high, x.high);
}
