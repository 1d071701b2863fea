// needs: token_range fours silu
// The MLP's activation: y[t, i] = silu(gate) * up with gate = x[t, i], up = x[t, width + i].
//
// Bindings (T = range.tokens):
//   0 range  uniform, see tokens/parts/token_range.wgsl
//   1 x      vec4<f32> [T, 2 * width / 4]
//   2 y      fours [T, width / 4]: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a thread four elements; workgroup.z is the token.
override width: u32 = 4;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<Four>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let fours = width / 4u;
  if (id.z >= range.tokens || id.x >= fours) { return; }
  let gate = x[2u * id.z * fours + id.x];
  let up = x[(2u * id.z + 1u) * fours + id.x];
  y[id.z * fours + id.x] = four_of(silu_products(gate, up));
}
