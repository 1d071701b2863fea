// needs: token_range sum_workgroup fours
// RMSNorm of each token: y[t, i] = x[t, i] / sqrt(mean over j of x[t, j]^2 + epsilon) * weight[i].
//
// Bindings (T = range.tokens):
//   0 range   uniform, see tokens/parts/token_range.wgsl
//   1 x       vec4<f32> [T, hidden / 4]
//   2 weight  vec4<f32> [hidden / 4]
//   3 y       fours [T, hidden / 4]: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a workgroup of 256 threads a token, its index in z. Up to four loads of a thread are on their way at a time.
override hidden: u32 = 4;
override epsilon: f32 = 0.0;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Four>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let first = workgroup.z * (hidden / 4u);
  var squares = 0.0;
  for (var i = thread; i < hidden / 4u; i += 1024u) {
    let a = four_at(first, i);
    let b = four_at(first, i + 256u);
    let c = four_at(first, i + 512u);
    let d = four_at(first, i + 768u);
    squares += (dot(a, a) + dot(b, b)) + (dot(c, c) + dot(d, d));
  }
  let factor = 1.0 / sqrt(sum_workgroup(squares, thread) / f32(hidden) + epsilon);
  for (var i = thread; i < hidden / 4u; i += 256u) { y[first + i] = four_of(factor * x[first + i] * weight[i]); }
}

// Four elements, 0 past the end.
fn four_at(first: u32, i: u32) -> vec4<f32> {
  return select(vec4(0.0), x[first + min(i, hidden / 4u - 1u)], i < hidden / 4u);
}
