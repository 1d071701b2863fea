// Fused, asynchronous matrix-vector product with packed weights:
//
//   y[r] = sum over groups g of scale[r, g] * (sum over c in g of code[r, c] x[c]  -  zero[r, g] * sum over c in g of x[c])
//          + sum over outliers o of row r of residual[o] x[channel[o]]
//
// with scale = scaleCode * d (second order: 4-bit code times the f16 scale of 16 rows x 1 group) and code = base +
// refine / 4 in the one refined group of every refine_every groups.
//
// Bindings (H = half_blocks, half blocks of 64 channels in a row; B = H / 2 blocks):
//   0 base           vec4<u32> [rows, H]    2 bits x 64 channels: |group 0: c15..c0|group 1|group 2|group 3|
//   1 refine         vec2<u32> [steps, words, 2]  2 bits x 16 channels of a refined group, same order, of 2 rows
//   2 meta_words     vec4<u32> [steps, H]   |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest, of the 4 rows of a step
//   3 tile_scale     vec4<u32> [tiles, B]   d of the eight groups of a block, f16 each
//   4 outlier_planes u32                    row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   5 y              f32 [tokens, token_rows], of which `rows` (silu_product: half as many) are written
//   6 x, packed or f32, and 7 the weight of a norm: see lib/fill_packed.wgsl, lib/fill_values.wgsl
//
// Mapping: workgroup.y is the token; tokens of a small batch run side by side and share the weights in the cache.
// A team of lanes (a subgroup) owns a column of `team` half blocks, one lane each; `columns` teams side by
// side cover a row. A workgroup is row_teams such rows of teams and stays for workgroup_steps steps of 4 rows, so few
// and large workgroups cover the matrix, about one for each multiprocessor. For a silu_product the first half of the
// steps are gate rows, the second half the up rows that belong to them.
//
// Where the asynchrony is (WGSL has no asynchronous copy):
//   - A lane asks for all words of its next step, codes, scales and second-order scales alike, 7 loads and 104 bytes,
//     before it decodes and multiplies the step at hand; the words of its first step are on their way while the input is
//     computed and packed. The loads stand behind a branch because the compiler would otherwise sink each to its first
//     use. For the same reason no address depends on a loaded word: scales come for all groups of a block, though a
//     refine word needs one.
//   - 12 teams share a multiprocessor, three to each of its four schedulers. While some wait, others decode and
//     multiply, and no barrier ever makes them meet; the synchronous kernel (fused_sync_gemv.wgsl) is this one with
//     barriers. Measured on an H200: 22016 x 4096 takes 12.6 us without arithmetic, 12.2 us from cache, 13.5 us with
//     both; asking for the words of a step at its start made it 17.4.
//   - Activations stay in registers for all rows, but refine words take theirs from workgroup memory.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
override y_row: u32 = 0; // of row 0, where a matrix is one of several that make y
override half_blocks: u32 = 2;
override refine_every: u32 = 8; // 0 for none
override team: u32 = 32;
override columns: u32 = 2;
override first_column: u32 = 0; // of this dispatch; rows too long for workgroup memory take several
override row_teams: u32 = 1;
override workgroup_steps: u32 = 4;
override workgroup_size: u32 = 64; // team * columns * row_teams
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where there are no outliers
override outlier_lanes: u32 = 4; // that share the outliers of a row, a power of two up to team
override output_kind: u32 = 0; // see lib/outputs.wgsl
override input_kind: u32 = 0; // this and the next four: see lib/input_values.wgsl
override channels: u32 = 1;
override splits: u32 = 1;
override head_size: u32 = 16;
override epsilon: f32 = 0.0;
override without: u32 = 0; // see lib/decode.wgsl

@group(0) @binding(0) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> refine: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> meta_words: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tile_scale: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

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

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = locate(thread, workgroup);
  let first_row = workgroup.x * workgroup_outputs();
  let row_team = thread / (team * columns);
  let input = begin_fill(lane.token, thread);
  var now: Step;
  let row = matrix_row(first_row, row_team * STEP_ROWS);
  if (row < rows) { now = load_step(row, lane); }
  if (outlier_residuals != 0u) { load_outlier_starts(first_row, thread); }
  fill_cells(input, lane.token, thread);
  workgroupBarrier();
  let x = take_activations(lane);
  var outliers: Outliers;
  if (outlier_residuals != 0u) { outliers = first_outliers(thread); }
  var sums = Sums(vec4(0.0), vec2(0.0));
  for (var first = 0u; first < workgroup_steps; first += row_teams) {
    let step = first + row_team;
    let next_row = matrix_row(first_row, (step + row_teams) * STEP_ROWS);
    var next: Step;
    if (next_row < rows) { next = load_step(next_row, lane); }
    // The sums of the step before: their exchanges wait for each other, so this step's arithmetic goes between.
    store_sums(sums, first > 0u, step - row_teams, lane);
    sums.rows = multiply_step(now, x, lane);
    sums.refined = refine_step(now, matrix_row(first_row, step * STEP_ROWS), lane);
    now = next;
  }
  store_sums(sums, true, last_step(row_team), lane);
  if (outlier_residuals != 0u) { sum_outliers(outliers, thread); }
  finish_input(thread);
  workgroupBarrier();
  write_rows(first_row, thread, lane.token);
}

// The step that a row of teams walks last.
fn last_step(row_team: u32) -> u32 {
  return (workgroup_steps - 1u) / row_teams * row_teams + row_team;
}

// Sums of a step's rows by lane, without and with what refine_step returns.
struct Sums {
  rows: vec4<f32>,
  refined: vec2<f32>,
}

fn store_sums(sums: Sums, is_done: bool, step: u32, lane: Lane) {
  let sum = sum_step(sums.rows, sums.refined, lane);
  if (is_done && lane.lane < STEP_ROWS && step < workgroup_steps) {
    partial[(lane.column * workgroup_steps + step) * STEP_ROWS + summed_row(lane.lane)] = sum;
  }
}

fn load_step(row: u32, lane: Lane) -> Step {
  let at = row * half_blocks + lane.half_block;
  let step_at = row / STEP_ROWS * half_blocks + lane.half_block;
  var step: Step;
  step.base0 = base[at];
  step.base1 = base[at + half_blocks];
  step.base2 = base[at + 2u * half_blocks];
  step.base3 = base[at + 3u * half_blocks];
  step.meta_words = meta_words[step_at];
  step.scales = block_scales(row, lane);
  if (refine_every == 8u) { step.refine = refine[step_at]; }
  return step;
}

fn multiply_step(now: Step, x: Activations, lane: Lane) -> vec4<f32> {
  let scales = select(now.scales.xy, now.scales.zw, lane.half_block % 2u == 1u);
  let scale512 = x.step512 * vec4(unpack2x16float(scales.x), unpack2x16float(scales.y));
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

// What the refine words add to two rows of the step, the rows 0 and 1 in even lanes, 2 and 3 in odd ones. One word in a
// block (the default) comes preloaded, other shares load theirs. The two lanes of a block share its words: which group is
// refined stands in the meta words of both halves of a block, its codes perhaps in those of the other lane.
fn refine_step(now: Step, row: u32, lane: Lane) -> vec2<f32> {
  if (refine_every == 0u) { return vec2(0.0); }
  if (refine_every != 8u) { return refine_words(row, lane); }
  let is_odd = (lane.lane & 1u) == 1u;
  let own = select(now.meta_words.xy, now.meta_words.zw, is_odd);
  let handed = select(now.meta_words.zw, now.meta_words.xy, is_odd);
  let other = vec2(exchange_bits(handed.x, lane.thread, 1u), exchange_bits(handed.y, lane.thread, 1u));
  let pick = own >> vec2(28u);
  let codes = select(own, other, (pick >= vec2(LANE_GROUPS)) != vec2(is_odd));
  let block = lane.lane / 2u;
  return vec2(
    refine_term(now.refine.x, codes.x, now.scales, pick.x, block, lane),
    refine_term(now.refine.y, codes.y, now.scales, pick.y, block, lane),
  );
}
