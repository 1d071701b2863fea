// needs: token_range
// The MLP's activation: y[t, i] = silu(gate) * up with gate = x[t, i], up = x[t, width + i], silu(g) = g / (1 +
// exp(-g)).
//
// Bindings (T = range.tokens):
//   0 range  uniform, see tokens/parts/token_range.wgsl
//   1 x      f32 [T, 2 * width]
//   2 y      f32 [T, width]
//
// Mapping: a thread an element; workgroup.z is the token.
override width: u32 = 1;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= width || id.z >= range.tokens) { return; }
  let gate = x[id.z * 2u * width + id.x];
  let up = x[id.z * 2u * width + width + id.x];
  // Beyond 80 silu is 0 for all purposes, and exp would overflow.
  y[id.z * width + id.x] = gate / (1.0 + exp(min(-gate, 80.0))) * up;
}
