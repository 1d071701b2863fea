// needs: one_matrix steps outliers several_inputs
// Fused matrix-vector products of two to four tokens with the same packed weights: fused_gemv.wgsl for several tokens
// at once, whose bindings and mapping it shares.
//
// Each word of a step is decoded once for all tokens. Activations stay in workgroup memory, since registers hold those
// of one token only: a lane takes a group of all tokens for the four rows of a step. Rows for which workgroup memory
// has no room are multiplied in parts of the channels, whose sums few_sums.wgsl adds up: the first row_workgroups
// workgroups take the first part, and so on. workgroup.z counts `tokens` tokens.
override all_tokens: u32 = 4; // of y
override row_workgroups: u32 = 0xffffffff; // of a part

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let part = workgroup.x / row_workgroups;
  let corner = Corner(workgroup.z * tokens, part * columns * team, workgroup.y);
  let lane = lane_in_part(locate(thread, workgroup), corner);
  let first_row = workgroup.x % row_workgroups * workgroup_outputs();
  let input = load_quarters(corner, thread);
  let first = first_step(first_row, lane);
  fill_cells(input, corner, thread);
  workgroupBarrier();
  multiply_tokens(first, first_row, lane, corner.always_zero);
  finish_tokens(thread);
  workgroupBarrier();
  write_tokens(first_row, part * all_tokens, corner.token, thread);
}

fn lane_in_part(lane: Lane, corner: Corner) -> Lane {
  var own = lane;
  own.half_block += corner.half_block;
  own.first_block += corner.half_block / 2u;
  return own;
}

// The lane as it stands to the cells of one of the workgroup's tokens.
fn lane_of_token(lane: Lane, token: u32) -> Lane {
  var own = lane;
  own.column += token * columns;
  return own;
}

// Sums of a step's rows by lane, a component a token.
struct TokenSums {
  row0: vec4<f32>,
  row1: vec4<f32>,
  row2: vec4<f32>,
  row3: vec4<f32>,
}

// A group of activations of all tokens: as half a block of one, with tokens in place of its groups.
alias TokenGroup = Activations;

fn multiply_tokens(first: Step, first_row: u32, lane: Lane, always_zero: u32) {
  let row_team = row_team_of(lane.thread);
  var now = first;
  for (var start = 0u; start < workgroup_steps; start += row_teams) {
    let step = start + row_team;
    let next_row = matrix_row(first_row, (step + row_teams) * STEP_ROWS);
    var next: Step;
    if (next_row < rows) { next = load_step(next_row, lane); }
    let sums = sum_tokens(now, lane, always_zero);
    let row = matrix_row(first_row, step * STEP_ROWS);
    let picked = pick_groups(now, lane);
    var one: SharedWord;
    if (refine_every > 8u) { one = load_shared(row, lane); }
    for (var token = 0u; token < tokens + always_zero; token++) {
      store_token(token, sums_of(token, sums), now, picked, one, row, step, lane);
    }
    now = next;
  }
}

fn sum_tokens(now: Step, lane: Lane, always_zero: u32) -> TokenSums {
  let scales = select(now.scales.xy, now.scales.zw, lane.half_block % 2u == 1u);
  let d = vec4(unpack2x16float(scales.x), unpack2x16float(scales.y));
  var sums: TokenSums;
  for (var group = 0u; group < LANE_GROUPS + always_zero; group++) {
    let words = vec4(
      pick_word(now.base0, group),
      pick_word(now.base1, group),
      pick_word(now.base2, group),
      pick_word(now.base3, group),
    );
    let codes = (now.meta_words >> vec4(7u * group)) << vec4(14u);
    sums = add_group(words, codes, pick_float(d, group), take_group(lane, group), lane.masks, sums);
  }
  return sums;
}

fn pick_float(v: vec4<f32>, i: u32) -> f32 {
  return bitcast<f32>(pick_word(bitcast<vec4<u32>>(v), i));
}

fn sums_of(token: u32, sums: TokenSums) -> vec4<f32> {
  return vec4(
    pick_float(sums.row0, token),
    pick_float(sums.row1, token),
    pick_float(sums.row2, token),
    pick_float(sums.row3, token),
  );
}

fn take_group(lane: Lane, group: u32) -> TokenGroup {
  let each = columns * team * LANE_GROUPS;
  let at = cell_of((lane.column * team + lane.lane) * LANE_GROUPS) + group * (team / 2u);
  var x: TokenGroup;
  x.hi0 = cell_hi[at];
  x.lo0 = cell_lo[at];
  x.hi1 = cell_hi[at + each];
  x.lo1 = cell_lo[at + each];
  let two = vec4(cell_sum[at], cell_sum[at + each]);
  x.step512 = vec4(two.xz, 0.0, 0.0);
  x.sum = vec4(two.yw, 0.0, 0.0);
  if (tokens > 2u) {
    x.hi2 = cell_hi[at + 2u * each];
    x.lo2 = cell_lo[at + 2u * each];
    x.hi3 = cell_hi[at + 3u * each];
    x.lo3 = cell_lo[at + 3u * each];
    let more = vec4(cell_sum[at + 2u * each], cell_sum[at + 3u * each]);
    x.step512 = vec4(two.xz, more.xz);
    x.sum = vec4(two.yw, more.yw);
  }
  x.bias = fma(x.sum, vec4(ZERO_PLUS), vec4(-MAGIC));
  return x;
}

// A group of the four rows, given its codes and its second-order scale.
fn add_group(
  words: vec4<u32>,
  codes: vec4<u32>,
  d: f32,
  x: TokenGroup,
  masks: CodeMasks,
  sums: TokenSums,
) -> TokenSums {
  let scale512 = d * x.step512;
  return TokenSums(
    add_word(words.x, codes.x, x, scale512, masks, sums.row0),
    add_word(words.y, codes.y, x, scale512, masks, sums.row1),
    add_word(words.z, codes.z, x, scale512, masks, sums.row2),
    add_word(words.w, codes.w, x, scale512, masks, sums.row3),
  );
}

// multiply_group of cells.wgsl for all tokens.
fn add_word(
  word: u32,
  codes: u32,
  x: TokenGroup,
  scale512: vec4<f32>,
  masks: CodeMasks,
  sum: vec4<f32>,
) -> vec4<f32> {
  var dots = vec4(dot_codes(word, x.hi0, x.lo0), dot_codes(word, x.hi1, x.lo1), 0.0, 0.0);
  if (tokens > 2u) { dots = vec4(dots.xy, dot_codes(word, x.hi2, x.lo2), dot_codes(word, x.hi3, x.lo3)); }
  let centred = fma(vec4(-zero_plus(codes, masks)), x.sum, dots + x.bias);
  let scale = vec4(
    scale_of(codes, masks, scale512.x),
    scale_of(codes, masks, scale512.y),
    scale_of(codes, masks, scale512.z),
    scale_of(codes, masks, scale512.w),
  );
  return fma(scale, centred, sum);
}

// Adds what refine words add to a token's sums, and sums over the team.
fn store_token(
  token: u32,
  sums: vec4<f32>,
  now: Step,
  picked: Picked,
  one: SharedWord,
  row: u32,
  step: u32,
  lane: Lane,
) {
  let own = lane_of_token(lane, token);
  var whole = sums;
  if (refine_every > 0u && refine_every <= LANE_GROUPS) { whole += refine_rows(now, row, take_activations(own), own); }
  var refined = refine_picked(now, picked, own);
  if (refine_every > 8u) { refined = refine_shared(one, own); }
  let sum = sum_step(whole, refined, own);
  if (lane.lane < STEP_ROWS && step < workgroup_steps) {
    partial[(own.column * workgroup_steps + step) * STEP_ROWS + summed_row(lane.lane)] = sum;
  }
}

// Writes a workgroup's rows of each of its tokens; `before` tokens of other parts come first.
fn write_tokens(first_row: u32, before: u32, first_token: u32, thread: u32) {
  let outputs = workgroup_outputs();
  for (var i = thread; i < tokens * outputs; i += workgroup_size) {
    let token = i / outputs;
    let own = i % outputs;
    let row = first_row + own;
    if (row >= rows / rows_per_output() || first_token + token >= all_tokens) { continue; }
    var sum = token_sum(token, own, row);
    if (output_kind == SILU_PRODUCT) { sum = silu_product(sum, token_sum(token, own + outputs, rows / 2u + row)); }
    write_row(before + first_token + token, row, sum);
  }
}

// The sum of a token with row i of the workgroup, the matrix's `row`.
fn token_sum(token: u32, i: u32, row: u32) -> f32 {
  var sum = 0.0;
  for (var column = 0u; column < columns; column++) {
    sum += partial[(token * columns + column) * workgroup_steps * STEP_ROWS + i];
  }
  if (outlier_residuals != 0u) { sum += token_outliers(token, row); }
  return sum * token_factor(token);
}

fn token_outliers(token: u32, row: u32) -> f32 {
  let end = outlier_word(outlier_start + row + 1u);
  var sum = 0.0;
  for (var o = outlier_word(outlier_start + row); o < end; o++) {
    let outlier = load_outlier(o);
    let channel = outlier & 0xffffu;
    let cell = cell_of(token * columns * team * LANE_GROUPS + channel / 16u);
    sum += unpack2x16float(outlier).y * activation_at(cell, channel);
  }
  return sum;
}
