// needs: token_range
// The MLP's activation: y[t, i] = silu(gate) * up with gate = x[t, i], up = x[t, width + i], silu(g) = g / (1 +
// exp(-g)).
//
// Bindings (T = range.tokens):
//   0 range  uniform, see tokens/parts/token_range.wgsl
//   1 x      f32 [T, 2 * width]
//   2 y      f32 [T, width]
//
// Mapping: a thread four elements that lie 256 apart, so that their loads are on their way together; workgroup.z is the
// token.
override width: u32 = 1;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  if (workgroup.z >= range.tokens) { return; }
  let i = vec4(workgroup.x * 1024u + thread) + vec4(0u, 256u, 512u, 768u);
  let at = workgroup.z * 2u * width + min(i, vec4(width - 1u));
  let gate = vec4(x[at.x], x[at.y], x[at.z], x[at.w]);
  let up = vec4(x[at.x + width], x[at.y + width], x[at.z + width], x[at.w + width]);
  // Beyond 80 silu is 0 for all purposes, and exp would overflow.
  let product = gate / (1.0 + exp(min(-gate, vec4(80.0)))) * up;
  let first = workgroup.z * width;
  if (i.x < width) { y[first + i.x] = product.x; }
  if (i.y < width) { y[first + i.y] = product.y; }
  if (i.z < width) { y[first + i.z] = product.z; }
  if (i.w < width) { y[first + i.w] = product.w; }
}
