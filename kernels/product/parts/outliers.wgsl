// needs: rows cells reduce
// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup. A row has so many
// slots in a table beside the compressed planes, a word each with a whole outlier: |residual f16|channel u16|, 0 where
// it has fewer. Lanes take a slot each, in passes over the rows. Where a slot lies follows from the lane alone, so the
// words of four passes are asked for before anything else of the matrix and multiplied as soon as the cells are filled,
// while the first step's words are still on their way; nothing of them stays in registers during the rounds. What rows
// have beyond their slots is taken from the compressed planes, after all rounds, by matrices that have such rows.

fn pass_rows() -> u32 {
  return workgroup_size >> slot_bits;
}

fn row_slots() -> u32 {
  return 1u << slot_bits;
}

fn slot_of(thread: u32) -> u32 {
  return thread & (row_slots() - 1u);
}

// Words of a lane for four passes from row `start` on.
fn load_slots(first_row: u32, start: u32, thread: u32) -> vec4<u32> {
  return vec4(
    load_slot(first_row, start, thread),
    load_slot(first_row, start + pass_rows(), thread),
    load_slot(first_row, start + 2u * pass_rows(), thread),
    load_slot(first_row, start + 3u * pass_rows(), thread),
  );
}

fn load_slot(first_row: u32, start: u32, thread: u32) -> u32 {
  // Asked first, as a compiler knows the answer where it knows the sizes.
  if (start >= workgroup_steps * STEP_ROWS) { return 0u; }
  let row = matrix_row(first_row, start + (thread >> slot_bits));
  if (row >= rows) { return 0u; }
  return outlier_planes[slot_start + (row << slot_bits) + slot_of(thread)];
}

// All passes, given the words of the first four; the sums are then in `partial`.
fn sum_slots(first: vec4<u32>, first_row: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  var words = first;
  for (var start = 0u; start < count; start += 4u * pass_rows()) {
    let end = start + 4u * pass_rows();
    var next: vec4<u32>;
    if (end < count) { next = load_slots(first_row, end, thread); }
    for (var pass_start = start; pass_start < min(end, count); pass_start += pass_rows()) {
      let i = pass_start + (thread >> slot_bits);
      let sum = sum_strided(outlier_term(words.x), thread, 1u, row_slots());
      if (slot_of(thread) == 0u && i < count) { partial[columns * count + i] = sum; }
      words = words.yzwx;
    }
    words = next;
  }
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
      let end = outlier_planes[outlier_start + row + 1u];
      let after_slots = outlier_planes[outlier_start + row] + row_slots();
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
  let channel = outlier_planes[at + rows + 1u] >> shift;
  return insertBits(channel, outlier_planes[at + outlier_residuals] >> shift, 16u, 16u);
}

fn outlier_term(word: u32) -> f32 {
  return unpack2x16float(word).y * activation(word & 0xffffu);
}
