// Refine words: what the second plane of bits adds to the rows of a step.

// Loads and multiplies the refine words of four rows and a column; a team shares them out word by word.
fn refine_words(row: u32, lane: Lane) -> vec4<f32> {
  var sums = vec4(0.0);
  let words = team * LANE_GROUPS / max(refine_every, 1u);
  let row_words = (half_blocks * LANE_GROUPS + refine_every - 1u) / max(refine_every, 1u);
  for (var index = lane.lane; index < STEP_ROWS * words; index += team) {
    let term_row = row + index / words;
    let run = lane.first_block * 8u / max(refine_every, 1u) + index % words;
    let group = run * refine_every + picked(term_row, run);
    let pair = meta_pair(term_row * (half_blocks / 2u) + group / 8u);
    let scales = tile_scale[(row / TILE_ROWS) * (half_blocks / 2u) + group / 8u];
    let block = group / 8u - lane.first_block;
    let term = refine_term(refine[term_row * row_words + run], pair, scales, group % 8u, block, lane);
    sums += select(vec4(0.0), vec4(term), vec4(0u, 1u, 2u, 3u) == vec4(index / words));
  }
  return sums;
}

// Which group of a run is refined, counted from the run's start.
fn picked(row: u32, run: u32) -> u32 {
  if (refine_every == 1u) { return 0u; }
  let field = meta_words[row * half_blocks + run * refine_every / LANE_GROUPS] >> 28u;
  if (refine_every == 2u) { return (field >> (run % 2u)) & 1u; }
  return field;
}

// The term of group `pick` of a block, which is counted from the start of the column.
fn refine_term(word: u32, meta_pair: vec2<u32>, scales: vec4<u32>, pick: u32, block: u32, lane: Lane) -> f32 {
  let is_upper = pick >= LANE_GROUPS;
  let codes = align_codes(select(meta_pair.x, meta_pair.y, is_upper), pick % LANE_GROUPS);
  let four_scales = select(scales.xy, scales.zw, is_upper);
  let two_scales = select(four_scales.x, four_scales.y, (pick & 2u) == 2u);
  let d = unpack2x16float(two_scales >> (16u * (pick & 1u))).x;
  return refine_group(word, codes, d, (lane.column * 8u + pick) * (team / 2u) + block, lane.masks);
}

// Meta words of both halves of a block.
fn meta_pair(block: u32) -> vec2<u32> {
  return vec2(meta_words[2u * block], meta_words[2u * block + 1u]);
}
