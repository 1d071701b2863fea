// Brings packed activations into the cells of a workgroup. Needs `half_blocks` and lib/cells.wgsl.

@group(0) @binding(6) var<storage, read> activations: array<vec4<u32>>; // [tokens, 10, half_blocks], see pack_activations.ts

fn fill_cells(token: u32, thread: u32) {
  for (var local = thread; local < columns * team; local += workgroup_size) {
    let half_block = first_column * team + local;
    if (half_block < half_blocks) { fill_half_block(token, half_block, local); } else { clear_half_block(local); }
  }
}

fn fill_half_block(token: u32, half_block: u32, local: u32) {
  let at = token * 10u * half_blocks + half_block;
  let step128 = bitcast<vec4<f32>>(activations[at + 8u * half_blocks]);
  let sum = bitcast<vec4<f32>>(activations[at + 9u * half_blocks]);
  for (var i = 0u; i < LANE_GROUPS; i++) {
    let cell = cell_of(local * LANE_GROUPS + i);
    cell_hi[cell] = activations[at + i * half_blocks];
    cell_lo[cell] = activations[at + (4u + i) * half_blocks];
    cell_sum[cell] = vec2(step128[i], sum[i]);
  }
}

fn clear_half_block(local: u32) {
  for (var i = 0u; i < LANE_GROUPS; i++) {
    let cell = cell_of(local * LANE_GROUPS + i);
    cell_hi[cell] = vec4(0u);
    cell_lo[cell] = vec4(0u);
    cell_sum[cell] = vec2(0.0);
  }
}

fn finish_input(thread: u32) {}

fn input_factor() -> f32 {
  return 1.0;
}
