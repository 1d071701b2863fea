// needs: decode
// is: scales
// The scale of a group out of its code: second-order dequantization. From the kernel: `half_blocks`.

@group(0) @binding(3) var<storage, read> tile_scale: array<u32>; // [tiles, S / 2]  d of two groups, f16; S in whole blocks

fn group_scale(row: u32, group: u32, codes: u32, masks: CodeMasks) -> f32 {
  let tile_groups = (half_blocks + 1u) / 2u * 8u;
  let at = (row / 16u) * tile_groups + group;
  let d = unpack2x16float(tile_scale[at / 2u] >> (16u * (at % 2u))).x;
  return scale_of(codes, masks, 512.0 * d);
}
