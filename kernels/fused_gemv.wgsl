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
//   1 refine         u32 [rows, words]      2 bits x 16 channels of a refined group, same order
//   2 meta_words     u32 [rows, H]          |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest
//   3 tile_scale     vec4<u32> [tiles, B]   d of the eight groups of a block, f16 each
//   4 outlier_planes u32                    row starts [rows + 1], channels u16, residuals f16 at outlier_residuals
//   5 y              f32 [tokens, token_rows], of which `rows` (silu_product: half as many) are written
//   6 x, packed or f32, and 7 the weight of a norm: see lib/fill_packed.wgsl, lib/fill_values.wgsl
//
// Mapping: workgroup.y is the token; tokens of a small batch run side by side and share the weights in the cache.
// A team of lanes (a subgroup) owns a column of `team` half blocks, one lane each; `columns` teams side by
// side cover a row. A workgroup is row_teams such rows of teams and stays for workgroup_steps steps of 4 rows, so few
// and large workgroups cover the matrix, about one for each multiprocessor.
//
// Where the asynchrony is (WGSL has no asynchronous copy):
//   - A lane asks for all words of a step at once, codes and second-order scales alike, 14 loads and 136 bytes, and
//     nothing waits for one before the others are on their way. They stand behind a branch because the compiler would
//     otherwise sink each load to its first use: one memory latency a step became three. For the same reason no
//     address depends on a loaded word: tile scales come for all groups of a block, though a refine word needs one.
//   - About 20 teams share a multiprocessor. While some wait for their step, others decode and multiply theirs, and no
//     barrier ever makes them meet; the synchronous kernel (fused_sync_gemv.wgsl) is this one with barriers.
//     Measured on an H200: 57344 x 8192 takes 44 us without arithmetic, 45 us from cache, 53 us with both.
//   - Teams hide more latency than registers do: loading a step ahead (32 registers more, 16 teams) was slower. So
//     activations stay in registers for all rows, but refine words take theirs from workgroup memory.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
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
@group(0) @binding(1) var<storage, read> refine: array<u32>;
@group(0) @binding(2) var<storage, read> meta_words: array<u32>;
@group(0) @binding(3) var<storage, read> tile_scale: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// What a lane loads for one step: half a block of four rows with its tile's scales.
struct Step {
  base0: vec4<u32>,
  base1: vec4<u32>,
  base2: vec4<u32>,
  base3: vec4<u32>,
  meta_words: vec4<u32>,
  scales: vec2<u32>,
}

// Two refine words of a step with the meta words and the tile's scales of their block.
struct Refine {
  words: vec2<u32>,
  meta0: vec2<u32>,
  meta1: vec2<u32>,
  scales: vec4<u32>,
}

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = locate(thread, workgroup);
  let row_team = thread / (team * columns);
  let first_row = workgroup.x * workgroup_outputs();
  if (outlier_residuals != 0u) { load_outlier_starts(first_row, thread); }
  fill_cells(lane.token, thread);
  workgroupBarrier();
  finish_input(thread);
  let x = take_activations(lane);
  for (var first = 0u; first < workgroup_steps; first += row_teams) {
    let step = first + row_team;
    let row = matrix_row(first_row, step * STEP_ROWS);
    var now: Step;
    var refined: Refine;
    if (row < rows) {
      if (refine_every == 8u) { refined = load_refine(row, lane); }
      now = load_step(row, lane);
    }
    let sum = sum_rows(multiply_step(now, x, lane) + refine_step(refined, row, lane), thread);
    if (lane.lane < STEP_ROWS && step < workgroup_steps) {
      partial[(lane.column * workgroup_steps + step) * STEP_ROWS + lane.lane] = sum;
    }
  }
  if (outlier_residuals != 0u) { sum_outliers(thread); }
  workgroupBarrier();
  write_rows(first_row, thread, lane.token);
}

fn load_step(row: u32, lane: Lane) -> Step {
  let at = row * half_blocks + lane.half_block;
  var step: Step;
  step.base0 = base[at];
  step.base1 = base[at + half_blocks];
  step.base2 = base[at + 2u * half_blocks];
  step.base3 = base[at + 3u * half_blocks];
  step.meta_words.x = meta_words[at];
  step.meta_words.y = meta_words[at + half_blocks];
  step.meta_words.z = meta_words[at + 2u * half_blocks];
  step.meta_words.w = meta_words[at + 3u * half_blocks];
  step.scales = own_scales(row, lane);
  return step;
}

// With one refined group in a block, a team shares out the refine words of four rows: its lower half takes the rows
// 0 and 2, its upper half the rows 1 and 3.
fn load_refine(row: u32, lane: Lane) -> Refine {
  let blocks = half_blocks / 2u;
  let block = lane.first_block + lane.lane % (team / 2u);
  let at = (row + lane.lane / (team / 2u)) * blocks + block;
  return Refine(
    vec2(refine[at], refine[at + half_blocks]),
    meta_pair(at),
    meta_pair(at + half_blocks),
    tile_scale[(row / TILE_ROWS) * blocks + block],
  );
}

fn multiply_step(now: Step, x: Activations, lane: Lane) -> vec4<f32> {
  let scale128 = x.step128 * vec4(unpack2x16float(now.scales.x), unpack2x16float(now.scales.y));
  return vec4(
    multiply_row(now.base0, now.meta_words.x, x, scale128, lane.masks),
    multiply_row(now.base1, now.meta_words.y, x, scale128, lane.masks),
    multiply_row(now.base2, now.meta_words.z, x, scale128, lane.masks),
    multiply_row(now.base3, now.meta_words.w, x, scale128, lane.masks),
  );
}

fn multiply_row(words: vec4<u32>, m: u32, x: Activations, scale128: vec4<f32>, masks: CodeMasks) -> f32 {
  var sum = multiply_group(words.x, m << 16u, masks, x.hi0, x.lo0, scale128.x, x.sum.x, x.bias.x, 0.0);
  sum = multiply_group(words.y, m << 9u, masks, x.hi1, x.lo1, scale128.y, x.sum.y, x.bias.y, sum);
  sum = multiply_group(words.z, m << 2u, masks, x.hi2, x.lo2, scale128.z, x.sum.z, x.bias.z, sum);
  return multiply_group(words.w, m >> 5u, masks, x.hi3, x.lo3, scale128.w, x.sum.w, x.bias.w, sum);
}

// What the refine words add to four rows. One word in a block (the default) comes preloaded; other shares load theirs.
fn refine_step(refined: Refine, row: u32, lane: Lane) -> vec4<f32> {
  if (refine_every == 0u) { return vec4(0.0); }
  if (refine_every != 8u) { return refine_words(row, lane); }
  let block = lane.lane % (team / 2u);
  let term0 = refine_term(refined.words.x, refined.meta0, refined.scales, refined.meta0.x >> 28u, block, lane);
  let term1 = refine_term(refined.words.y, refined.meta1, refined.scales, refined.meta1.x >> 28u, block, lane);
  if (lane.lane < team / 2u) { return vec4(term0, 0.0, term1, 0.0); }
  return vec4(0.0, term0, 0.0, term1);
}
