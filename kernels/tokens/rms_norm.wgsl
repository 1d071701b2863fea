// needs: token_range sum_workgroup
// RMSNorm of each token: y[t, i] = x[t, i] / sqrt(mean over j of x[t, j]^2 + epsilon) * weight[i].
//
// Bindings (T = range.tokens):
//   0 range   uniform, see tokens/parts/token_range.wgsl
//   1 x       f32 [T, hidden]
//   2 weight  f32 [hidden]
//   3 y       f32 [T, hidden]
//
// Mapping: a workgroup of 256 threads a token, its index in z.
override hidden: u32 = 1;
override epsilon: f32 = 0.0;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let first = workgroup.z * hidden;
  var squares = 0.0;
  for (var i = thread; i < hidden; i += 256u) { squares = fma(x[first + i], x[first + i], squares); }
  let factor = 1.0 / sqrt(sum_workgroup(squares, thread) / f32(hidden) + epsilon);
  for (var i = thread; i < hidden; i += 256u) { y[first + i] = x[first + i] * factor * weight[i]; }
}
