// needs: group
// First pass of the two-pass product: packed weights to f16 in memory, scales before weights. Second of the three-pass
// product, where decode_scales.wgsl has decoded the scales already.
//
//   w[r, c] = (code[r, c] - zero[r, g]) * scale[r, g],    scale = scaleCode[r, g] * d[r / 16, g]
//
// Bindings (H = half_blocks, G = 4 H groups in a row):
//   0 base        u32 [rows, G]       2 bits x 16 channels
//   1 refine      u32 [steps, words, 4]  2 bits x 16 channels of each refined group
//   2 meta_words  u32 [steps, H, 4]       |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   3 d or scales, see coded_scales.wgsl and stored_scales.wgsl
//   4 weights     vec4<u32> [rows, 2 G]  f16, 16 channels of a group in two vectors
//
// Mapping: one thread half a group, so that neighbouring threads write neighbouring vectors.
override rows: u32 = 1;
override half_blocks: u32 = 2;
override refine_every: u32 = 8; // 0 for none
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> base: array<u32>;
@group(0) @binding(1) var<storage, read> refine: array<u32>;
@group(0) @binding(2) var<storage, read> meta_words: array<u32>;
@group(0) @binding(4) var<storage, read_write> weights: array<vec4<u32>>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
  let at = id.y * count.x * workgroup_size + id.x;
  let half_groups = 8u * half_blocks;
  if (at >= rows * half_groups) { return; }
  let group = decode(at / half_groups, at % half_groups / 2u, code_masks(id.z));
  let first = 4u * (at % 2u);
  weights[at] = vec4(
    decode_pair(group, first),
    decode_pair(group, first + 1u),
    decode_pair(group, first + 2u),
    decode_pair(group, first + 3u),
  );
}

// Weights 2i and 2i + 1 of a group as f16. Codes become floats in the mantissa of 2^23, as in
// product/parts/decode.wgsl.
fn decode_pair(group: Group, i: u32) -> u32 {
  if ((without & FIRST_ORDER) != 0u) {
    return pack2x16float(bitcast<vec2<f32>>(vec2(group.word, group.fine)) * group.scale);
  }
  let base_codes = (vec2(group.word) >> vec2(4u * i, 4u * i + 2u)) & vec2(3u);
  let fine_codes = (vec2(group.fine) >> vec2(4u * i, 4u * i + 2u)) & vec2(3u);
  let codes = bitcast<vec2<f32>>((base_codes * 4u + fine_codes) | vec2(0x4b000000u)) - vec2(8388608.0);
  return pack2x16float((0.25 * codes - vec2(group.zero)) * group.scale);
}
