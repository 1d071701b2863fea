// needs: rows cells reduce
// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup. A row has so many
// slots in a table beside the compressed planes, a word each with a whole outlier: |residual f16|channel u16|, 0 where
// it has fewer. A lane takes four slots of a row, a vector; teams for which no rows are left skip the arithmetic. Where
// a vector lies follows from the lane alone, so those of two passes over the rows are asked for before anything else of
// the matrix and multiplied as soon as the cells are filled, while the first step's words are still on their way;
// nothing of them stays in registers during the rounds. What rows have beyond their slots is taken from the compressed
// planes, after all rounds, by matrices that have such rows.

// Vectors of a lane for two passes.
struct Slots {
  first: vec4<u32>,
  second: vec4<u32>,
}

// Lanes of a row, of four slots each, are 2^lane_bits().
fn lane_bits() -> u32 {
  return slot_bits - 2u;
}

fn pass_rows() -> u32 {
  return workgroup_size >> lane_bits();
}

// From row `start` on.
fn load_slots(first_row: u32, start: u32, thread: u32) -> Slots {
  return Slots(load_four(first_row, start, thread), load_four(first_row, start + pass_rows(), thread));
}

fn load_four(first_row: u32, start: u32, thread: u32) -> vec4<u32> {
  // Asked first, as a compiler knows the answer where it knows the sizes.
  if (start >= workgroup_steps * STEP_ROWS) { return vec4(0u); }
  let row = matrix_row(first_row, start + (thread >> lane_bits()));
  if (row >= rows) { return vec4(0u); }
  return outlier_planes[slot_start + (row << lane_bits()) + (thread & ((1u << lane_bits()) - 1u))];
}

// All passes, given the vectors of the first two; the sums are then in `partial`.
fn sum_slots(first: Slots, first_row: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  var slots = first;
  for (var start = 0u; start < count; start += 2u * pass_rows()) {
    let end = start + 2u * pass_rows();
    var next: Slots;
    if (end < count) { next = load_slots(first_row, end, thread); }
    sum_pass(slots.first, start, thread);
    if (start + pass_rows() < count) { sum_pass(slots.second, start + pass_rows(), thread); }
    slots = next;
  }
}

fn sum_pass(words: vec4<u32>, start: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let i = start + (thread >> lane_bits());
  var sum = 0.0;
  if (any(words != vec4(0u))) {
    sum = outlier_term(words.x) + outlier_term(words.y) + (outlier_term(words.z) + outlier_term(words.w));
  }
  sum = sum_strided(sum, thread, 1u, 1u << lane_bits());
  if ((thread & ((1u << lane_bits()) - 1u)) == 0u && i < count) { partial[columns * count + i] = sum; }
}

// Adds what rows have beyond their slots. As many lanes share a row as leave one pass, if that can be.
fn sum_beyond(first_row: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let lanes = min(team, 1u << firstLeadingBit(max(1u, workgroup_size / count)));
  workgroupBarrier();
  for (var start = 0u; start < count; start += workgroup_size / lanes) {
    let i = start + thread / lanes;
    let row = matrix_row(first_row, i);
    var sum = 0.0;
    if (row < rows) {
      let end = outlier_word(outlier_start + row + 1u);
      let after_slots = outlier_word(outlier_start + row) + (1u << slot_bits);
      for (var o = after_slots + thread % lanes; o < end; o += lanes) { sum += outlier_term(load_outlier(o)); }
    }
    sum = sum_strided(sum, thread, 1u, lanes);
    if (thread % lanes == 0u && i < count) { partial[columns * count + i] += sum; }
  }
}

// An outlier of the compressed planes, as the word of a slot.
fn load_outlier(o: u32) -> u32 {
  let at = outlier_start + o / 2u;
  let shift = 16u * (o % 2u);
  let channel = outlier_word(at + rows + 1u) >> shift;
  return insertBits(channel, outlier_word(at + outlier_residuals) >> shift, 16u, 16u);
}

fn outlier_word(at: u32) -> u32 {
  return outlier_planes[at / 4u][at % 4u];
}

fn outlier_term(word: u32) -> f32 {
  return unpack2x16float(word).y * activation(word & 0xffffu);
}
