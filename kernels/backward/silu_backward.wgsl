// needs: token_range
// Gradients of the MLP's activation, y[t, i] = silu(gate) * up, in place of gate and up:
//
//   gate = x[t, i], up = x[t, width + i], s = 1 / (1 + exp(-gate))
//   x[t, i] = dy[t, i] * up * s (1 + gate (1 - s));  x[t, width + i] = dy[t, i] * gate * s
//
// Bindings (T = range.tokens):
//   0 range       uniform, see tokens/parts/token_range.wgsl
//   1 y_gradient  f32 [T, width]
//   2 x           f32 [T, 2 * width]
//
// Mapping: a thread an element; workgroup.z is the token.
override width: u32 = 1;

@group(0) @binding(1) var<storage, read> y_gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= width || id.z >= range.tokens) { return; }
  let at = id.z * 2u * width + id.x;
  let gate = x[at];
  let up = x[at + width];
  let gradient = y_gradient[id.z * width + id.x];
  // Beyond 80 the sigmoid is 0 for all purposes, and exp would overflow.
  let sigmoid = 1.0 / (1.0 + exp(min(-gate, 80.0)));
  x[at] = gradient * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
  x[at + width] = gradient * gate * sigmoid;
}
