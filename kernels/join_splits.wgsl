// Attention of tokens whose sequences were split, combined: see ValuesInput `attention` in gemv_modes.ts. A matrix-vector
// product combines its input itself; a matrix-matrix product wants it as it is.
//
// Bindings (T = range.tokens):
//   0 range        uniform, see lib/prefill_range.wgsl
//   1 values       f32, partial results
//   2 norm_weight  not read
//   3 mixed        vec4<f32> [T, channels / 4]
//
// Mapping: a thread four channels; workgroup.y is the token.
override channels: u32 = 16;
override input_kind: u32 = 2; // this and the next three: see lib/input_values.wgsl
override splits: u32 = 1;
override head_size: u32 = 16;
override epsilon: f32 = 0.0;

@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read> norm_weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> mixed: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (4u * id.x >= channels || id.y >= range.tokens) { return; }
  mixed[id.y * channels / 4u + id.x] = input_values(load_input(id.y, 4u * id.x, 1u), 4u * id.x, 1u);
}
