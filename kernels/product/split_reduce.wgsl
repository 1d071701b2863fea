// needs: attention_values fours
// Attention of tokens whose sequences were split, combined: see Prologue `attention` in prologue_epilogue.ts. A
// matrix-vector product with packed weights combines its input itself; others want it as it is, in f16 or f32.
//
// Bindings (T tokens):
//   0 values  f32 [T, splits * (channels + 2 * heads)]
//   1 mixed   fours [T, channels / 4]: f32 or f16, see gpu/parts/float_fours.wgsl and half_fours.wgsl
//
// Mapping: a thread four channels; workgroup.z is the token.
@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read_write> mixed: array<Four>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (4u * id.x >= channels) { return; }
  mixed[id.z * channels / 4u + id.x] = four_of(attention(id.z, vec4(4u * id.x) + vec4(0u, 1u, 2u, 3u)));
}
