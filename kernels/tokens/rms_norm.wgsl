// needs: token_range sum_workgroup
// RMSNorm of each token: y[t, i] = x[t, i] / sqrt(mean over j of x[t, j]^2 + epsilon) * weight[i].
//
// Bindings (T = range.tokens):
//   0 range   uniform, see tokens/parts/token_range.wgsl
//   1 x       f32 [T, hidden]
//   2 weight  f32 [hidden]
//   3 y       f32 [T, hidden]
//
// Mapping: a workgroup of 256 threads a token, its index in z. Up to 16 loads of a thread are on their way at a time.
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
  for (var i = thread; i < hidden; i += 4096u) {
    let a = four_at(first, i);
    let b = four_at(first, i + 1024u);
    let c = four_at(first, i + 2048u);
    let d = four_at(first, i + 3072u);
    squares += (dot(a, a) + dot(b, b)) + (dot(c, c) + dot(d, d));
  }
  let factor = 1.0 / sqrt(sum_workgroup(squares, thread) / f32(hidden) + epsilon);
  for (var i = thread; i < hidden; i += 1024u) { write_four(first, i, factor * four_at(first, i)); }
}

// Elements that lie 256 apart, so that loads of neighbouring threads are neighbours; 0 past the end.
fn four_at(first: u32, i: u32) -> vec4<f32> {
  let at = vec4(i) + vec4(0u, 256u, 512u, 768u);
  let own = first + min(at, vec4(hidden - 1u));
  return select(vec4(0.0), vec4(x[own.x], x[own.y], x[own.z], x[own.w]), at < vec4(hidden));
}

fn write_four(first: u32, i: u32, four: vec4<f32>) {
  let at = min(vec4(i) + vec4(0u, 256u, 512u, 768u), vec4(hidden - 1u));
  let own = four * vec4(weight[at.x], weight[at.y], weight[at.z], weight[at.w]);
  y[first + i] = own.x;
  if (i + 256u < hidden) { y[first + i + 256u] = own.y; }
  if (i + 512u < hidden) { y[first + i + 512u] = own.z; }
  if (i + 768u < hidden) { y[first + i + 768u] = own.w; }
}
