// needs: rows cells decode
// Refine words: what the second plane of bits adds to the rows of a step; and second-order scales.

// Rows that share second-order scales.
const TILE_ROWS = 16u;

// Loads and multiplies the refine words of a density of 16, one for two blocks of a row. Each of the four lanes of two
// blocks takes that of a row: even lanes those of the rows 0 and 1, odd lanes those of 2 and 3.
fn refine_words(row: u32, lane: Lane) -> vec2<f32> {
  return refine_shared(load_shared(row, lane), lane);
}

// A lane's refine word of two blocks, of one of its rows; `group` is counted from the start of the row.
struct SharedWord {
  word: u32,
  codes: u32,
  scales: vec4<u32>,
  group: u32,
}

fn load_shared(row: u32, lane: Lane) -> SharedWord {
  let i = summed_row(lane.lane);
  let step = row / STEP_ROWS;
  let run = lane.half_block / 4u;
  let pick = meta_words[meta_start + step * half_blocks + 4u * run][i] >> 28u;
  let group = 16u * run + pick;
  let codes = meta_words[meta_start + step * half_blocks + group / LANE_GROUPS][i];
  let scales = tile_scale[scale_start + (row / TILE_ROWS) * (whole_half_blocks() / 2u) + group / 8u];
  let word = refine[refine_start + (step * ((half_blocks + 3u) / 4u) + run) * 2u + i / 2u][i % 2u];
  return SharedWord(word, codes, scales, group);
}

fn refine_shared(one: SharedWord, lane: Lane) -> vec2<f32> {
  let block = one.group / 8u - lane.first_block;
  let term = refine_term(one.word, one.codes, one.scales, one.group % 8u, block, lane);
  return select(vec2(0.0, term), vec2(term, 0.0), summed_row(lane.lane) % 2u == 0u);
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

// Second-order scales of the eight groups of a lane's block: two f16 in each word.
fn block_scales(row: u32, lane: Lane) -> vec4<u32> {
  return tile_scale[scale_start + (row / TILE_ROWS) * (whole_half_blocks() / 2u) + lane.half_block / 2u];
}

// Half blocks of a row with the one that is missing where it ends in half a block.
fn whole_half_blocks() -> u32 {
  return (half_blocks + ends_in_half) & ~ends_in_half;
}
