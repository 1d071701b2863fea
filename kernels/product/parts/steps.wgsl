// needs: rows refine cells
// Rows of packed weights times the activations in a workgroup's cells, step by step; see fused_gemv.wgsl for the
// mapping and for where the asynchrony is. From the kernel: the planes of fused_gemv.wgsl, `refine_every`, and, unless
// from one_matrix.wgsl, where planes start and leading_team(row_team), which is as far behind as any that a team walks
// along with.

// What a lane loads for one step: half a block of four rows, with the second-order scales of the block and the refine
// words of two of the rows.
struct Step {
  base0: vec4<u32>,
  base1: vec4<u32>,
  base2: vec4<u32>,
  base3: vec4<u32>,
  meta_words: vec4<u32>,
  scales: vec4<u32>,
  refine: vec2<u32>,
}

// Multiplies all rows of a workgroup, given the first step, once the cells are filled; the sums are then in `partial`.
fn multiply_rows(first: Step, first_row: u32, lane: Lane) {
  let row_team = row_team_of(lane.thread);
  let lead = leading_team(row_team);
  var now = first;
  let x = take_activations(lane);
  var sums = Sums(vec4(0.0), vec2(0.0));
  var start = 0u;
  for (; start + lead < workgroup_steps; start += row_teams) {
    let step = start + row_team;
    let next_row = matrix_row(first_row, (step + row_teams) * STEP_ROWS);
    var next: Step;
    if (next_row < rows) { next = load_step(next_row, lane); }
    // The sums of the step before: their exchanges wait for each other, so this step's arithmetic goes between.
    store_sums(sums, start > 0u, step - row_teams, lane);
    sums = sum_rows(now, matrix_row(first_row, step * STEP_ROWS), x, lane);
    now = next;
  }
  store_sums(sums, start > 0u, start - row_teams + row_team, lane);
}

// Sums of a step's rows by lane, without and with what refine_step returns.
struct Sums {
  rows: vec4<f32>,
  refined: vec2<f32>,
}

fn sum_rows(now: Step, row: u32, x: Activations, lane: Lane) -> Sums {
  var sums = Sums(multiply_step(now, x, lane), vec2(0.0));
  if (refine_every > 0u && refine_every <= LANE_GROUPS) { sums.rows += refine_rows(now, row, x, lane); }
  sums.refined = refine_step(now, row, lane);
  return sums;
}

fn store_sums(sums: Sums, is_done: bool, step: u32, lane: Lane) {
  let sum = sum_step(sums.rows, sums.refined, lane);
  if (is_done && lane.lane < STEP_ROWS && step < workgroup_steps) {
    partial[(lane.column * workgroup_steps + step) * STEP_ROWS + summed_row(lane.lane)] = sum;
  }
}

fn load_step(row: u32, lane: Lane) -> Step {
  let at = base_start + row * half_blocks + lane.half_block;
  let step_at = row / STEP_ROWS * half_blocks + lane.half_block;
  var step: Step;
  step.base0 = base[at];
  step.base1 = base[at + half_blocks];
  step.base2 = base[at + 2u * half_blocks];
  step.base3 = base[at + 3u * half_blocks];
  step.meta_words = meta_words[meta_start + step_at - select(0u, 1u, is_missing_half(lane))];
  step.scales = block_scales(row, lane);
  if (refine_every == 8u) {
    step.refine = refine[refine_start + row / STEP_ROWS * whole_half_blocks() + lane.half_block];
  }
  return step;
}

// Where a row ends in half a block, the next lane has no weights, but multiplies refine words of two rows: it takes the
// meta words of the half that is there.
fn is_missing_half(lane: Lane) -> bool {
  return ends_in_half == 1u && lane.half_block == half_blocks;
}

// 512 times the products of a lane's second-order scales and the steps of its groups.
fn scales512(now: Step, x: Activations, lane: Lane) -> vec4<f32> {
  let scales = select(now.scales.xy, now.scales.zw, lane.half_block % 2u == 1u);
  return x.step512 * vec4(unpack2x16float(scales.x), unpack2x16float(scales.y));
}

fn multiply_step(now: Step, x: Activations, lane: Lane) -> vec4<f32> {
  let scale512 = scales512(now, x, lane);
  return vec4(
    multiply_row(now.base0, now.meta_words.x, x, scale512, lane.masks),
    multiply_row(now.base1, now.meta_words.y, x, scale512, lane.masks),
    multiply_row(now.base2, now.meta_words.z, x, scale512, lane.masks),
    multiply_row(now.base3, now.meta_words.w, x, scale512, lane.masks),
  );
}

fn multiply_row(words: vec4<u32>, m: u32, x: Activations, scale512: vec4<f32>, masks: CodeMasks) -> f32 {
  var sum = multiply_group(words.x, m << 14u, masks, x.hi0, x.lo0, scale512.x, x.sum.x, x.bias.x, 0.0);
  sum = multiply_group(words.y, m << 7u, masks, x.hi1, x.lo1, scale512.y, x.sum.y, x.bias.y, sum);
  sum = multiply_group(words.z, m, masks, x.hi2, x.lo2, scale512.z, x.sum.z, x.bias.z, sum);
  return multiply_group(words.w, m >> 7u, masks, x.hi3, x.lo3, scale512.w, x.sum.w, x.bias.w, sum);
}

// What refine words add where half a block has some to itself, one for each run of its groups: their lane takes them in
// all rows of the step. All are asked for before any is used.
fn refine_rows(now: Step, row: u32, x: Activations, lane: Lane) -> vec4<f32> {
  let first = lane.half_block % 2u * LANE_GROUPS;
  let field = now.meta_words >> vec4(28u);
  // 8, 4 and 2 vectors, for densities of 1, 2 and 4.
  let vectors = 8u >> (refine_every / 2u);
  let at = refine_start + (row / STEP_ROWS * half_blocks + lane.half_block) * vectors;
  if (refine_every == 1u) {
    let a = four_words(at);
    let b = four_words(at + 2u);
    let c = four_words(at + 4u);
    let d = four_words(at + 6u);
    let scale512 = scales512(now, x, lane);
    return vec4(
      refine_row(vec4(a.x, b.x, c.x, d.x), now.meta_words.x, x, scale512, lane.masks),
      refine_row(vec4(a.y, b.y, c.y, d.y), now.meta_words.y, x, scale512, lane.masks),
      refine_row(vec4(a.z, b.z, c.z, d.z), now.meta_words.z, x, scale512, lane.masks),
      refine_row(vec4(a.w, b.w, c.w, d.w), now.meta_words.w, x, scale512, lane.masks),
    );
  }
  if (refine_every == 2u) {
    let a = four_words(at);
    let b = four_words(at + 2u);
    let picks = vec4(first) + (field & vec4(1u));
    return refine_run(a, picks, now, lane) + refine_run(b, vec4(first + 2u) + (field >> vec4(1u)), now, lane);
  }
  return refine_run(four_words(at), vec4(first) + field, now, lane);
}

// Refine words of the four rows of a step.
fn four_words(at: u32) -> vec4<u32> {
  return vec4(refine[at], refine[at + 1u]);
}

// All four groups of a row are refined.
fn refine_row(words: vec4<u32>, m: u32, x: Activations, scale512: vec4<f32>, masks: CodeMasks) -> f32 {
  return refine_group(words.x, m << 14u, masks, x.hi0, x.lo0, scale512.x, x.sum.x) +
    refine_group(words.y, m << 7u, masks, x.hi1, x.lo1, scale512.y, x.sum.y) +
    refine_group(words.z, m, masks, x.hi2, x.lo2, scale512.z, x.sum.z) +
    refine_group(words.w, m >> 7u, masks, x.hi3, x.lo3, scale512.w, x.sum.w);
}

// One group of each row is refined, `picks` of the block.
fn refine_run(words: vec4<u32>, picks: vec4<u32>, now: Step, lane: Lane) -> vec4<f32> {
  let block = lane.lane / 2u;
  return vec4(
    refine_term(words.x, now.meta_words.x, now.scales, picks.x, block, lane),
    refine_term(words.y, now.meta_words.y, now.scales, picks.y, block, lane),
    refine_term(words.z, now.meta_words.z, now.scales, picks.z, block, lane),
    refine_term(words.w, now.meta_words.w, now.scales, picks.w, block, lane),
  );
}

// What refine words that lanes share add to two rows of the step, the rows 0 and 1 in even lanes, 2 and 3 in odd ones.
// One word in a block (the default) comes preloaded, one in two blocks is loaded here. The two lanes of a block share
// its words: which group is refined stands in the meta words of both halves of a block, its codes perhaps in those of
// the other lane.
fn refine_step(now: Step, row: u32, lane: Lane) -> vec2<f32> {
  let picked = pick_groups(now, lane);
  if (refine_every > 8u) { return refine_words(row, lane); }
  return refine_picked(now, picked, lane);
}

// The refined groups of a block in the two rows of a lane, and the meta words with their codes.
struct Picked {
  groups: vec2<u32>,
  codes: vec2<u32>,
}

fn pick_groups(now: Step, lane: Lane) -> Picked {
  let is_odd = (lane.lane & 1u) == 1u;
  let own = select(now.meta_words.xy, now.meta_words.zw, is_odd);
  let handed = select(now.meta_words.zw, now.meta_words.xy, is_odd);
  // Before the density is asked for: where it is a variable, a compiler may not know that it is the same for all lanes.
  let other = vec2(exchange_bits(handed.x, lane.thread, 1u), exchange_bits(handed.y, lane.thread, 1u));
  let pick = own >> vec2(28u);
  return Picked(pick, select(own, other, (pick >= vec2(LANE_GROUPS)) != vec2(is_odd)));
}

fn refine_picked(now: Step, picked: Picked, lane: Lane) -> vec2<f32> {
  if (refine_every != 8u) { return vec2(0.0); }
  let block = lane.lane / 2u;
  return vec2(
    refine_term(now.refine.x, picked.codes.x, now.scales, picked.groups.x, block, lane),
    refine_term(now.refine.y, picked.codes.y, now.scales, picked.groups.y, block, lane),
  );
}
