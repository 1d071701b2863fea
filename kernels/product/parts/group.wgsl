// needs: decode scales
// Decoding one group by itself; refine and meta words lie by steps of four rows, see packed_matrix.ts. From the kernel:
// `base`, `refine`, `meta_words`, `half_blocks`, `refine_every`.

struct Group {
  word: u32,
  // Refine word, 0 where the group is not refined.
  fine: u32,
  zero: f32,
  scale: f32,
}

fn decode(row: u32, group: u32, masks: CodeMasks) -> Group {
  let groups = 4u * half_blocks;
  let meta_word = meta_words[(row / 4u * half_blocks + group / 4u) * 4u + row % 4u];
  let codes = align_codes(meta_word, group % 4u);
  let scale = group_scale(row, group, codes, masks);
  // First order: its zero and, in the caller, its codes.
  var zero = zero_plus(codes, masks) - ZERO_PLUS;
  let run = refined_run(meta_word, group);
  var fine = 0u;
  if (run >= 0) {
    zero = fma(0.75, zero, 0.75);
    let row_words = (groups + refine_every - 1u) / max(refine_every, 1u);
    fine = refine[(row / 4u * row_words + u32(run)) * 4u + row % 4u];
  }
  return Group(base[row * groups + group], fine, zero, scale);
}

// Index of the refine word of a group in its row, or -1 where it is not refined.
fn refined_run(meta_word: u32, group: u32) -> i32 {
  if (refine_every == 0u) { return -1; }
  let run = group / max(refine_every, 1u);
  let field = meta_word >> 28u;
  var pick = field;
  if (refine_every == 1u) { pick = 0u; }
  if (refine_every == 2u) { pick = (field >> (run % 2u)) & 1u; }
  return select(-1, i32(run), run * refine_every + pick == group);
}
