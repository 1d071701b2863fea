// needs: coded_scales
// First pass of the three-pass product, second-order dequantization: the scales of all groups to f16 in memory.
//
//   scale[r, g] = scaleCode[r, g] * d[r / 16, g]
//
// Bindings (H = half_blocks, G = 4 H groups in a row):
//   2 meta_words  u32 [steps, H, 4]   |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   3 tile_scale, see coded_scales.wgsl
//   4 scales      vec2<u32> [rows, H]  four groups' scales, f16 each
//
// Mapping: one thread a meta word, so that neighbouring threads write neighbouring vectors.
override rows: u32 = 1;
override half_blocks: u32 = 2;
override workgroup_size: u32 = 256;

@group(0) @binding(2) var<storage, read> meta_words: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<vec2<u32>>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
  let at = id.y * count.x * workgroup_size + id.x;
  if (at >= rows * half_blocks) { return; }
  let row = at / half_blocks;
  let half_block = at % half_blocks;
  let meta_word = meta_words[(row / 4u * half_blocks + half_block) * 4u + row % 4u];
  let masks = code_masks(id.z);
  scales[at] = vec2(
    decode_pair(row, 4u * half_block, meta_word, masks),
    decode_pair(row, 4u * half_block + 2u, meta_word, masks),
  );
}

// Scales of two neighbouring groups.
fn decode_pair(row: u32, group: u32, meta_word: u32, masks: CodeMasks) -> u32 {
  let first = group_scale(row, group, align_codes(meta_word, group % 4u), masks);
  let second = group_scale(row, group + 1u, align_codes(meta_word, group % 4u + 1u), masks);
  return pack2x16float(vec2(first, second));
}
