// needs: gemm_edges
// is: tile
// Matrix-matrix product for many tokens by subgroups that multiply matrices (tensor cores): y[t, r] = sum over c of
// w[r, c] x[t, c], for any kind of weights. Factors are f16, sums f32.
//
// Mapping: a workgroup of subgroup_rows x subgroup_tokens subgroups of 32 lanes; each makes 64 rows x 64 tokens, 4 x 4
// matrices of 16 x 16 that stay in registers. It walks the channels in steps. In a step every thread puts its turns of
// one row's weights and its share of the activations into workgroup memory; then it asks for what the next step needs
// while the subgroup multiplies. Rows and tokens have 8 channels more there than they need: for other memory banks.
//
// Activations are made a sixteenth, which is exact and undone at the end: a model's largest would exceed f16.
//
// From the kernel: the same as for wide_tile.wgsl.
override subgroup_rows: u32 = 2;
override subgroup_tokens: u32 = 2; // 2 or 4
override STRIDE_CHANNELS: u32 = 32; // of a step: 32 or 64
override tile_rows: u32 = 64u * subgroup_rows;
override tile_tokens: u32 = 64u * subgroup_tokens;
override threads: u32 = 32u * subgroup_rows * subgroup_tokens;
override step_turns: u32 = STRIDE_CHANNELS / 8u;
override stride: u32 = step_turns + 1u;
override weight_vectors: u32 = tile_rows * stride;
override token_vectors: u32 = tile_tokens * stride;
override sum_elements: u32 = 8u * threads;
// Turns from one of a thread's own to the next.
override TURN_STRIDE: u32 = subgroup_tokens / 2u;
// Turns of a thread in a step: of its row, at most TURN_SLOTS, and of tokens, at most 8.
override own_turns: u32 = step_turns / TURN_STRIDE;
override token_turns: u32 = tile_tokens * step_turns / threads;

const TURN_SLOTS = 4u;
const ACTIVATION_UNIT = 16.0;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;
// 16 tokens of a subgroup, its 64 rows.
alias Strip = array<Sum, 4>;

// [row or token of the tile][channel of the step / 8]: eight f16 each
var<workgroup> weight_tile: array<vec4<u32>, weight_vectors>;
var<workgroup> token_tile: array<vec4<u32>, token_vectors>;
// [subgroup][token, row]: matrices of sums on their way out
var<workgroup> sum_tile: array<f32, sum_elements>;

// Two chunks for each turn.
alias Activations = array<vec4<f32>, 16>;

@compute @workgroup_size(threads)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * tile_tokens;
  let tile_first_row = workgroup.y * tile_rows;
  if (first_token >= range.tokens) { return; }
  let tile_row = thread % tile_rows;
  let part = thread / tile_rows;
  let row = min(tile_first_row + tile_row, rows - 1u);
  let steps = (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS;
  let own_row = 64u * (thread / 32u % subgroup_rows);
  let own_token = 64u * (thread / 32u / subgroup_rows);
  var weights = start_weights(row, workgroup.z);
  fetch_turns(&weights, row, part, 0u);
  var activations = fetch_activations(first_token, thread, 0u);
  var s0: Strip;
  var s1: Strip;
  var s2: Strip;
  var s3: Strip;
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    for (var i = 0u; i < own_turns; i++) {
      let turn = i * TURN_STRIDE + part;
      put_weights(&weights, tile_row, step * step_turns + turn, 8u * turn, i);
    }
    put_activations(&activations, thread);
    workgroupBarrier();
    let next = min(step + 1u, steps - 1u);
    fetch_turns(&weights, row, part, next);
    activations = fetch_activations(first_token, thread, next);
    for (var turn = 0u; turn < step_turns; turn += 2u) {
      let r0 = weight_matrix(own_row, turn);
      let r1 = weight_matrix(own_row + 16u, turn);
      let r2 = weight_matrix(own_row + 32u, turn);
      let r3 = weight_matrix(own_row + 48u, turn);
      multiply(token_matrix(own_token, turn), r0, r1, r2, r3, &s0);
      multiply(token_matrix(own_token + 16u, turn), r0, r1, r2, r3, &s1);
      multiply(token_matrix(own_token + 32u, turn), r0, r1, r2, r3, &s2);
      multiply(token_matrix(own_token + 48u, turn), r0, r1, r2, r3, &s3);
    }
  }
  write_strip(tile_first_row + own_row, first_token + own_token, thread, &s0);
  write_strip(tile_first_row + own_row, first_token + own_token + 16u, thread, &s1);
  write_strip(tile_first_row + own_row, first_token + own_token + 32u, thread, &s2);
  write_strip(tile_first_row + own_row, first_token + own_token + 48u, thread, &s3);
}

// 16 channels of 16 rows; of 16 tokens. Offsets and strides of matrices count vectors, the array's elements.
fn weight_matrix(row: u32, turn: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, row * stride + turn, stride);
}

fn token_matrix(token: u32, turn: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&token_tile, token * stride + turn, stride);
}

fn multiply(left: Left, r0: Right, r1: Right, r2: Right, r3: Right, sums: ptr<function, Strip>) {
  (*sums)[0] = subgroupMatrixMultiplyAccumulate(left, r0, (*sums)[0]);
  (*sums)[1] = subgroupMatrixMultiplyAccumulate(left, r1, (*sums)[1]);
  (*sums)[2] = subgroupMatrixMultiplyAccumulate(left, r2, (*sums)[2]);
  (*sums)[3] = subgroupMatrixMultiplyAccumulate(left, r3, (*sums)[3]);
}

fn fetch_turns(weights: ptr<function, Weights>, row: u32, part: u32, step: u32) {
  for (var i = 0u; i < own_turns; i++) {
    fetch_weights(weights, row, step * step_turns + i * TURN_STRIDE + part, i);
  }
}

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_halves(tile_channel, tile_row, halves_of(low, high));
}

fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  weight_tile[tile_row * stride + tile_channel / 8u] = words;
}

fn halves_of(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

fn add_to_weight(tile_channel: u32, tile_row: u32, value: f32) {
  let at = tile_row * stride + tile_channel / 8u;
  let word = tile_channel / 2u % 4u;
  let added = select(vec2(value, 0.0), vec2(0.0, value), tile_channel % 2u == 1u);
  weight_tile[at][word] = pack2x16float(unpack2x16float(weight_tile[at][word]) + added);
}

// Neighbouring threads load neighbouring channels of a token.
fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  var activations: Activations;
  for (var i = 0u; i < token_turns; i++) {
    let turn = thread + i * threads;
    let token = first_token + turn / step_turns;
    let chunk = 2u * (step * step_turns + turn % step_turns);
    activations[2u * i] = activations_at(token, chunk);
    activations[2u * i + 1u] = activations_at(token, chunk + 1u);
  }
  return activations;
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  for (var i = 0u; i < token_turns; i++) {
    let turn = thread + i * threads;
    let low = (*activations)[2u * i] / ACTIVATION_UNIT;
    let high = (*activations)[2u * i + 1u] / ACTIVATION_UNIT;
    token_tile[turn / step_turns * stride + turn % step_turns] = halves_of(low, high);
  }
}

fn write_strip(row: u32, token: u32, thread: u32, strip: ptr<function, Strip>) {
  write_matrix(row, token, thread, (*strip)[0]);
  write_matrix(row + 16u, token, thread, (*strip)[1]);
  write_matrix(row + 32u, token, thread, (*strip)[2]);
  write_matrix(row + 48u, token, thread, (*strip)[3]);
}

// A lane writes four rows of two tokens.
fn write_matrix(row: u32, token: u32, thread: u32, sum: Sum) {
  let first = thread / 32u * 256u;
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&sum_tile, first, sum, 16u);
  workgroupBarrier();
  write_lane(row, token, first, thread % 32u);
  write_lane(row, token, first, thread % 32u + 32u);
}

fn write_lane(row: u32, token: u32, first: u32, quad: u32) {
  let at = first + 4u * quad;
  let sums = vec4(sum_tile[at], sum_tile[at + 1u], sum_tile[at + 2u], sum_tile[at + 3u]);
  write_rows(row + 4u * (quad % 4u), token + quad / 4u, ACTIVATION_UNIT * sums);
}
