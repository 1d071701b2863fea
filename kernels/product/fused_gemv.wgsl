// needs: one_matrix steps outliers in_order fill
// Fused, asynchronous matrix-vector product with packed weights:
//
//   y[r] = sum over groups g of scale[r, g] * (sum over c in g of code[r, c] x[c]  -  zero[r, g] * sum over c in g of x[c])
//          + sum over outliers o of row r of residual[o] x[channel[o]]
//
// with scale = scaleCode * d (second order: 4-bit code times the f16 scale of 16 rows x 1 group) and code = base +
// refine / 4 in the one refined group of every refine_every groups.
//
// Bindings (H = half_blocks, half blocks of 64 channels in a row; B = H / 2 blocks, the last perhaps a half):
//   0 base           vec4<u32> [rows, H]    2 bits x 64 channels: |group 0: c15..c0|group 1|group 2|group 3|
//   1 refine         vec2<u32> [steps, words, 2]  2 bits x 16 channels of a refined group, same order, of 2 rows
//   2 meta_words     vec4<u32> [steps, H]   |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest, of the 4 rows of a step
//   3 tile_scale     vec4<u32> [tiles, B]   d of the eight groups of a block, f16 each
//   4 outlier_planes vec4<u32>              words: row starts [rows + 1], channels u16, residuals f16 at
//                                           outlier_residuals; vectors from slot_start on: slots [rows, 2^slot_bits],
//                                           see product/parts/outliers.wgsl
//   5 y              f32 [tokens, token_rows], of which `rows` (silu_product: half as many) are written
//   6 x, packed or f32, and 7 the weight of a norm: see fill_packed.wgsl, one_input.wgsl
//
// Mapping: workgroup.z is the token; tokens of a small batch run side by side and share the weights in the cache.
// A team of lanes (a subgroup) owns a column of `team` half blocks, one lane each; `columns` teams side by
// side cover a row. A workgroup is row_teams such rows of teams and stays for workgroup_steps steps of 4 rows, so few
// and large workgroups cover the matrix, about one for each multiprocessor. For a silu_product the first half of the
// steps are gate rows, the second half the up rows that belong to them.
//
// Where the asynchrony is (WGSL has no asynchronous copy):
//   - A lane asks for all words of its next step, codes, scales and second-order scales alike, 7 loads and 104 bytes,
//     before it decodes and multiplies the step at hand; the words of its first step are on their way while the input
//     is computed and packed. The loads stand behind a branch because the compiler would otherwise sink each to its
//     first use. For the same reason no address depends on a loaded word: scales come for all groups of a block, though
//     a refine word needs one.
//   - 12 teams share a multiprocessor, three to each of its four schedulers. While some wait, others decode and
//     multiply, and no barrier ever makes them meet. Measured on an H200: 22016 x 4096 takes 12.6 us without
//     arithmetic, 12.2 us from cache, 13.5 us with both.
//   - Activations stay in registers for all rows, but refine words take theirs from workgroup memory.
//
// With `in_order` a lane asks for the words of a step when it needs them, and nothing is on its way while it multiplies:
// the same kernel without asynchrony, see in_order.wgsl.
override in_order: u32 = 0;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = locate(thread, workgroup);
  let first_row = workgroup.x * workgroup_outputs();
  let input = begin_fill(lane.token, thread);
  var slots: Slots;
  if (has_outliers()) { slots = load_slots(first_row, 0u, thread); }
  var first: Step;
  if (in_order == 0u) { first = first_step(first_row, lane); }
  fill_cells(input, lane.token, thread);
  workgroupBarrier();
  if (has_outliers()) { sum_slots(slots, first_row, thread); }
  if (in_order == 0u) { multiply_rows(first, first_row, lane); } else { multiply_rows_in_order(first_row, lane); }
  if (outlier_residuals != 0u) { sum_beyond(first_row, thread); }
  finish_input(thread);
  workgroupBarrier();
  write_rows(first_row, thread, lane.token);
}
