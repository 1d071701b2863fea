// Refine words: what the second plane of bits adds to the rows of a step.

// Loads and multiplies the refine words of four rows and a column; a team shares them out word by word.
fn refine_words(row: u32, lane: Lane) -> vec4<f32> {
  var sums = vec4(0.0);
  let words = team * LANE_GROUPS / max(refine_every, 1u);
  let row_words = (half_blocks * LANE_GROUPS + refine_every - 1u) / max(refine_every, 1u);
  for (var index = lane.lane; index < STEP_ROWS * words; index += team) {
    let term_row = row + index / words;
    let run = lane.first_block * 8u / max(refine_every, 1u) + index % words;
    let block = run * refine_every / 8u;
    let pair = meta_pairs[term_row * (half_blocks / 2u) + block];
    let scales = tile_scale[(row / TILE_ROWS) * (half_blocks / 2u) + block];
    let term = refine_term(refine[term_row * row_words + run], pair, scales, run, term_row, lane);
    sums += select(vec4(0.0), vec4(term), vec4(0u, 1u, 2u, 3u) == vec4(index / words));
  }
  return sums;
}

// The term of the group that `run` refines. meta_pair and tile_scales are those of the run's first block.
fn refine_term(word: u32, meta_pair: vec2<u32>, tile_scales: vec4<u32>, run: u32, row: u32, lane: Lane) -> f32 {
  let first = run * refine_every;
  let field = select(meta_pair.x, meta_pair.y, first % 8u >= LANE_GROUPS) >> 28u;
  var pick = field;
  if (refine_every == 1u) { pick = 0u; }
  if (refine_every == 2u) { pick = (field >> (run % 2u)) & 1u; }
  let group = first + pick;
  var pair = meta_pair;
  var scales = tile_scales;
  if (refine_every == 16u) {
    pair = meta_pairs[row * (half_blocks / 2u) + group / 8u];
    scales = tile_scale[(row / TILE_ROWS) * (half_blocks / 2u) + group / 8u];
  }
  let is_upper = (group & 4u) != 0u;
  let codes = align_codes(select(pair.x, pair.y, is_upper), group % LANE_GROUPS);
  let half_scales = select(scales.xy, scales.zw, is_upper);
  let two_scales = select(half_scales.x, half_scales.y, (group & 2u) != 0u);
  let d = unpack2x16float(two_scales >> (16u * (group & 1u))).x;
  return refine_group(word, codes, d, group - lane.first_block * 8u, lane);
}
