// needs: part_sums sum_workgroup fours
// Adds parts of the channels and outliers, see part_sums.wgsl, to the residual stream, and norms that: y[t, r] += sum,
// normed[t, r] = y[t, r] / sqrt(mean over i of y[t, i]^2 + epsilon) * weight[r].
//
// Bindings, beside those of part_sums.wgsl:
//   4 y       vec4<f32> [tokens, rows / 4], rows a multiple of 4
//   5 weight  vec4<f32> [rows / 4]
//   6 normed  fours [tokens, rows / 4]: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a workgroup a token, its index in y; so many threads that each has about four rows.
override epsilon: f32 = 0.0;

@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> normed: array<Four>;

@compute @workgroup_size(sum_threads)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let token = workgroup.y;
  if (token >= range.tokens) { return; }
  let quads = rows / 4u;
  var squares = 0.0;
  for (var quad = thread; quad < quads; quad += sum_threads) {
    let four = y[token * quads + quad] + sum_four(quad, token);
    y[token * quads + quad] = four;
    squares += dot(four, four);
  }
  let factor = 1.0 / sqrt(sum_workgroup(squares, thread) / f32(rows) + epsilon);
  for (var quad = thread; quad < quads; quad += sum_threads) {
    normed[token * quads + quad] = four_of(factor * y[token * quads + quad] * weight[quad]);
  }
}
