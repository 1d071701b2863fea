// needs: decode
// is: scales
// The scale of a group out of its code: second-order dequantization. From the kernel: `half_blocks`.

@group(0) @binding(3) var<storage, read> tile_scale: array<u32>; // [tiles, G / 2]  d of two groups, f16 each

fn group_scale(row: u32, group: u32, codes: u32, masks: CodeMasks) -> f32 {
  let at = (row / 16u) * 4u * half_blocks + group;
  let d = unpack2x16float(tile_scale[at / 2u] >> (16u * (at % 2u))).x;
  return scale_of(codes, masks, 512.0 * d);
}
