// A Hessian in the order of quantization, damped (quant/error_feedback.ts): what is factored.
//
//   damped[i, j] = hessian[c(i), c(j)] + (added where i = j), c(16 p + k) = 16 group_order[p] + k
//   A zero on the diagonal, the mark of a channel that is never active, becomes 1 instead.
//
// Bindings:
//   0 hessian      f32 [size, size], of which the upper triangle is read
//   1 group_order  u32 [size / 16]
//   2 damping      uniform: what is added
//   3 damped       f32 [size, size]
//   4 diagonal     f32 [size]: the diagonal of `damped`
//
// Mapping: a thread an element, 64 columns a workgroup; workgroup.y is the row.
override size: u32 = 16;

@group(0) @binding(0) var<storage, read> hessian: array<f32>;
@group(0) @binding(1) var<storage, read> group_order: array<u32>;
@group(0) @binding(2) var<uniform> damping: vec4<f32>;
@group(0) @binding(3) var<storage, read_write> damped: array<f32>;
@group(0) @binding(4) var<storage, read_write> diagonal: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= size) { return; }
  let a = 16u * group_order[id.y / 16u] + id.y % 16u;
  let b = 16u * group_order[id.x / 16u] + id.x % 16u;
  var value = hessian[min(a, b) * size + max(a, b)];
  if (id.x == id.y) {
    value = select(value + damping.x, 1.0, value == 0.0);
    diagonal[id.x] = value;
  }
  damped[id.y * size + id.x] = value;
}
