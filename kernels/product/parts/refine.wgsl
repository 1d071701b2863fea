// needs: rows cells decode
// Refine words: what the second plane of bits adds to the rows of a step.

// Loads and multiplies the refine words of four rows and a column, one for every `every` groups. Even lanes share out
// those of the rows 0 and 1, odd lanes those of 2 and 3.
fn refine_words(row: u32, every: u32, lane: Lane) -> vec2<f32> {
  var sums = vec2(0.0);
  let words = team * LANE_GROUPS / every;
  let row_words = (half_blocks * LANE_GROUPS + every - 1u) / every;
  let step = row / STEP_ROWS;
  let half = lane.lane % 2u * 2u;
  for (var index = lane.lane / 2u; index < 2u * words; index += team / 2u) {
    let i = half + index / words;
    let run = lane.first_block * 8u / every + index % words;
    let group = run * every + picked(step, i, run, every);
    let codes = meta_words[meta_start + step * half_blocks + group / LANE_GROUPS][i];
    let scales = tile_scale[scale_start + (row / TILE_ROWS) * (whole_half_blocks() / 2u) + group / 8u];
    let block = group / 8u - lane.first_block;
    let word = refine[refine_start + (step * row_words + run) * 2u + i / 2u][i % 2u];
    let term = refine_term(word, codes, scales, group % 8u, block, lane);
    sums += select(vec2(0.0), vec2(term), vec2(0u, 1u) == vec2(index / words));
  }
  return sums;
}

// Which group of a run of row i of a step is refined, counted from the run's start.
fn picked(step: u32, i: u32, run: u32, every: u32) -> u32 {
  if (every == 1u) { return 0u; }
  let field = meta_words[meta_start + step * half_blocks + run * every / LANE_GROUPS][i] >> 28u;
  if (every == 2u) { return (field >> (run % 2u)) & 1u; }
  return field;
}

// The term of group `pick` of a block, which is counted from the start of the column; meta_word is that of the group.
fn refine_term(word: u32, meta_word: u32, scales: vec4<u32>, pick: u32, block: u32, lane: Lane) -> f32 {
  let codes = align_codes(meta_word, pick % LANE_GROUPS);
  let four_scales = select(scales.xy, scales.zw, pick >= LANE_GROUPS);
  let two_scales = select(four_scales.x, four_scales.y, (pick & 2u) == 2u);
  let d = unpack2x16float(two_scales >> (16u * (pick & 1u))).x;
  let cell = cell_at(lane.column, pick, block);
  let step_sum = cell_sum[cell];
  return refine_group(word, codes, lane.masks, cell_hi[cell], cell_lo[cell], step_sum.x * d, step_sum.y);
}
