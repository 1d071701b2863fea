// Refine words: what the second plane of bits adds to the rows of a step.

// Loads and multiplies the refine words of four rows and a column; a team shares them out word by word.
fn refine_words(row: u32, lane: Lane) -> vec4<f32> {
  var sums = vec4(0.0);
  let words = team * LANE_GROUPS / max(refine_every, 1u);
  let row_words = (half_blocks * LANE_GROUPS + refine_every - 1u) / max(refine_every, 1u);
  for (var index = lane.lane; index < STEP_ROWS * words; index += team) {
    let term_row = row + index / words;
    let run = lane.first_block * 8u / max(refine_every, 1u) + index % words;
    let pair = meta_pairs[term_row * (half_blocks / 2u) + run * refine_every / 8u];
    let term = refine_term(refine[term_row * row_words + run], pair, run, term_row, lane);
    sums += select(vec4(0.0), vec4(term), vec4(0u, 1u, 2u, 3u) == vec4(index / words));
  }
  return sums;
}

// The group that `run` refines, and its term. meta_pair is that of the run's first block.
fn refine_term(word: u32, meta_pair: vec2<u32>, run: u32, row: u32, lane: Lane) -> f32 {
  let first = run * refine_every;
  let field = select(meta_pair.x, meta_pair.y, first % 8u >= LANE_GROUPS) >> 28u;
  var pick = field;
  if (refine_every == 1u) { pick = 0u; }
  if (refine_every == 2u) { pick = (field >> (run % 2u)) & 1u; }
  let group = first + pick;
  var pair = meta_pair;
  if (refine_every == 16u) { pair = meta_pairs[row * (half_blocks / 2u) + group / 8u]; }
  let codes = align_codes(select(pair.x, pair.y, group % 8u >= LANE_GROUPS), group % LANE_GROUPS);
  let d = tile_scale[(row / TILE_ROWS) * half_blocks * 2u + group / 2u] >> (16u * (group % 2u));
  return refine_group(word, codes, unpack2x16float(d).x, group - lane.first_block * 8u, lane);
}
