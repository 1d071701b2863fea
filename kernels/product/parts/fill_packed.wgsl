// needs: cells
// is: fill
// Brings packed activations into the cells of a workgroup. From the kernel: `half_blocks`.

@group(0) @binding(6) var<storage, read> activations: array<vec4<u32>>; // [tokens, 10, half_blocks], see pack_activations.ts

// A group's activations, as they go into its cell.
struct Fill {
  hi: vec4<u32>,
  lo: vec4<u32>,
  step512: u32,
  sum: u32,
}

// Asks for what fill_cells needs first, so that weights can be asked for before it comes.
fn begin_fill(token: u32, thread: u32) -> Fill {
  var fill: Fill;
  if (thread < columns * team * LANE_GROUPS) { fill = load_group(token, thread); }
  return fill;
}

fn fill_cells(first: Fill, token: u32, thread: u32) {
  let count = columns * team * LANE_GROUPS;
  if (thread < count) { fill_group(first, thread); }
  for (var i = thread + workgroup_size; i < count; i += workgroup_size) { fill_group(load_group(token, i), i); }
}

// Group i of the dispatch in the order of planes: neighbouring threads load neighbouring vectors.
fn load_group(token: u32, i: u32) -> Fill {
  let plane = i / (columns * team);
  let first = token * 10u * half_blocks + min(half_block_of(i), half_blocks - 1u);
  return Fill(
    activations[first + plane * half_blocks],
    activations[first + (4u + plane) * half_blocks],
    activations[first + 8u * half_blocks][plane],
    activations[first + 9u * half_blocks][plane],
  );
}

fn half_block_of(i: u32) -> u32 {
  return first_column * team + i % (columns * team);
}

fn fill_group(fill: Fill, i: u32) {
  let cell = cell_of(i % (columns * team) * LANE_GROUPS + i / (columns * team));
  cell_hi[cell] = fill.hi;
  if (activation_bits > 8u) { cell_lo[cell] = fill.lo; }
  // Past the end of the row a step of 0 makes all products 0.
  let is_used = half_block_of(i) < half_blocks;
  cell_sum[cell] = select(vec2(0.0), vec2(bitcast<f32>(fill.step512), bitcast<f32>(fill.sum)), is_used);
}

fn finish_input(thread: u32) {}

fn input_factor() -> f32 {
  return 1.0;
}
