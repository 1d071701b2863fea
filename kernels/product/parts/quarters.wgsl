// needs: quantize cells reduce
// Packing values into the cells of a workgroup. Four threads share a group of 16 channels: thread j takes the channels
// 4i + j, whose bytes are word j of its cell.

// Packs quarter `index` of the cells, where there is such a one.
fn put_quarter(values: vec4<f32>, index: u32, is_used: bool, thread: u32) {
  let j = index % 4u;
  let largest = max_of_four(largest_bits(values), thread);
  let step = group_step(largest, select(LARGEST, LARGEST_BYTE, activation_bits == 8u));
  let word = quantize(values, step, unit_of(j));
  let sum = sum_strided(word.sum, thread, 1u, 4u);
  if (is_used) {
    let cell = cell_of(index / 4u);
    cell_hi[cell][j] = word.hi;
    if (activation_bits > 8u) { cell_lo[cell][j] = word.lo; }
    if (j == 0u) { cell_sum[cell] = vec2(group_step512(largest, step), sum); }
  }
}
