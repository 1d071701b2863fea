// needs: token_range
// Adds a bias to every token: y[t, i] += bias[i].
//
// Bindings (T = range.tokens):
//   0 range  uniform, see tokens/parts/token_range.wgsl
//   1 bias   f32 [width]
//   2 y      f32 [T, width]
//
// Mapping: a thread an element; workgroup.z is the token.
override width: u32 = 1;

@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= width || id.z >= range.tokens) { return; }
  y[id.z * width + id.x] += bias[id.x];
}
