// needs: part_sums silu fours
// Adds up parts of the channels and the outliers of a matrix whose upper half is gate's rows and whose lower half up's,
// see part_sums.wgsl: y[t, r] = silu(gate) up.
//
// Bindings, beside those of part_sums.wgsl:
//   4 y  fours [tokens, rows / 8], rows a multiple of 8: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a thread four elements of y; workgroup.y is the token.
@group(0) @binding(4) var<storage, read_write> y: array<Four>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let quads = rows / 8u;
  if (id.x >= quads || id.y >= range.tokens) { return; }
  let gate = sum_four(id.x, id.y);
  let up = sum_four(id.x + quads, id.y);
  y[id.y * quads + id.x] = four_of(silu_products(gate, up));
}
