// Brings packed activations into the cells of a workgroup. Needs `half_blocks` and lib/cells.wgsl.

@group(0) @binding(6) var<storage, read> activations: array<vec4<u32>>; // [tokens, 10, half_blocks], see pack_activations.ts

fn fill_cells(token: u32, thread: u32) {
  let count = columns * team;
  let first = token * 10u * half_blocks;
  for (var i = thread; i < LANE_GROUPS * count; i += workgroup_size) {
    let local = i % count;
    let plane = i / count;
    let half_block = first_column * team + local;
    let at = first + plane * half_blocks + min(half_block, half_blocks - 1u);
    let hi = activations[at];
    let lo = activations[at + 4u * half_blocks];
    let step512 = bitcast<f32>(activations[first + 8u * half_blocks + min(half_block, half_blocks - 1u)][plane]);
    let sum = bitcast<f32>(activations[first + 9u * half_blocks + min(half_block, half_blocks - 1u)][plane]);
    let cell = cell_of(local * LANE_GROUPS + plane);
    cell_hi[cell] = hi;
    cell_lo[cell] = lo;
    // Past the end of the row a step of 0 makes all products 0.
    cell_sum[cell] = select(vec2(0.0), vec2(step512, sum), half_block < half_blocks);
  }
}

fn finish_input(thread: u32) {}

fn input_factor() -> f32 {
  return 1.0;
}
