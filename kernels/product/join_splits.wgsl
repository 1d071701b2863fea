// needs: attention_values prefill_range
// Attention of tokens whose sequences were split, combined: see ValuesInput `attention` in gemv_modes.ts. A matrix-vector
// product combines its input itself; a matrix-matrix product wants it as it is.
//
// Bindings (T = range.tokens):
//   0 range        uniform, see tokens/parts/prefill_range.wgsl
//   1 values       f32, partial results
//   2 mixed        vec4<f32> [T, channels / 4]
//
// Mapping: a thread four channels; workgroup.z is the token.

@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> mixed: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (4u * id.x >= channels || id.z >= range.tokens) { return; }
  mixed[id.z * channels / 4u + id.x] = attention(id.z, vec4(4u * id.x) + vec4(0u, 1u, 2u, 3u));
}
