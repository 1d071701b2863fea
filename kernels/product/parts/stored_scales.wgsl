// needs: decode
// is: scales
// The scale of a group as decode_scales.wgsl has left it in memory. From the kernel: `half_blocks`.

@group(0) @binding(3) var<storage, read> scales: array<u32>; // [rows, G / 2]  two groups' scales, f16 each

fn group_scale(row: u32, group: u32, codes: u32, masks: CodeMasks) -> f32 {
  let at = row * 4u * half_blocks + group;
  return unpack2x16float(scales[at / 2u] >> (16u * (at % 2u))).x;
}
