// needs: attention_values
// Attention over a sequence that was split, combined and rounded to f16: the input of an f16 product, see the kind
// `attention` of ValuesInput in gemv_modes.ts.
//
// Bindings:
//   0 values       f32 [tokens, splits * (channels + 2 * heads)]
//   1 combined     vec2<u32> [tokens, quads]  f16, four channels each
//
// Mapping: one thread four channels; workgroup.z is the token.
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> combined: array<vec2<u32>>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let quads = channels / 4u;
  if (id.x >= quads) { return; }
  let x = attention(id.z, vec4(4u * id.x) + vec4(0u, 1u, 2u, 3u));
  combined[id.z * quads + id.x] = vec2(pack2x16float(x.xy), pack2x16float(x.zw));
}
