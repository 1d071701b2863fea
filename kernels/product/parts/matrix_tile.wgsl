// needs: gemm_edges
// is: tile
// Matrix-matrix product for many tokens by subgroups that multiply matrices (tensor cores): y[t, r] = sum over c of
// w[r, c] x[t, c], for any kind of weights. Factors are f16, sums f32.
//
// Mapping: a workgroup of 2 x 2 subgroups of 32 lanes, 128 rows x 128 tokens; each subgroup makes 64 rows x 64 tokens,
// 4 x 4 matrices of 16 x 16 that stay in registers. It walks the channels in steps of 32. In a step every thread puts
// one row's weights and its share of the activations into workgroup memory; then it asks for what the next step needs
// while the subgroup multiplies. Rows and tokens have 8 channels more there than they need: for other memory banks.
// What a thread has under way is written out, never indexed by a loop: registers would become memory.
//
// Activations are made a sixteenth, which is exact and undone at the end: a model's largest would exceed f16.
//
// From the kernel: the same as for wide_tile.wgsl.
const TILE_ROWS = 128u;
const TILE_TOKENS = 128u;
const STRIDE_CHANNELS = 32u;
const STEP_TURNS = 4u;
// Turns from one of a thread's own to the next.
const TURN_STRIDE = 1u;
const TURN_SLOTS = 4u;
// Vectors from one row or token to the next.
const STRIDE = 5u;

const ACTIVATION_UNIT = 16.0;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;
// 16 tokens of a subgroup, its 64 rows.
alias Strip = array<Sum, 4>;

// [row or token of the tile][channel of the step / 8]: eight f16 each
var<workgroup> weight_tile: array<vec4<u32>, 640>;
var<workgroup> token_tile: array<vec4<u32>, 640>;
// [subgroup][token, row]: matrices of sums on their way out
var<workgroup> sum_tile: array<f32, 1024>;

// Eight channels of the tokens t, t + 32, t + 64 and t + 96 of the tile.
alias Activations = array<vec4<f32>, 8>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let tile_first_row = workgroup.y * TILE_ROWS;
  if (first_token >= range.tokens) { return; }
  let row = min(tile_first_row + thread, rows - 1u);
  let steps = (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS;
  let own_row = 64u * (thread / 32u % 2u);
  let own_token = 64u * (thread / 64u);
  var weights = start_weights(row, workgroup.z);
  fetch_turns(&weights, row, 0u);
  var activations = fetch_activations(first_token, thread, 0u);
  var s0: Strip;
  var s1: Strip;
  var s2: Strip;
  var s3: Strip;
  for (var step = 0u; step < steps; step++) {
    workgroupBarrier();
    put_turns(&weights, thread, step);
    put_activations(&activations, thread);
    workgroupBarrier();
    let next = min(step + 1u, steps - 1u);
    fetch_turns(&weights, row, next);
    activations = fetch_activations(first_token, thread, next);
    multiply_turns(own_row, own_token, 0u, &s0, &s1, &s2, &s3);
    multiply_turns(own_row, own_token, 2u, &s0, &s1, &s2, &s3);
  }
  write_strip(tile_first_row + own_row, first_token + own_token, thread, &s0);
  write_strip(tile_first_row + own_row, first_token + own_token + 16u, thread, &s1);
  write_strip(tile_first_row + own_row, first_token + own_token + 32u, thread, &s2);
  write_strip(tile_first_row + own_row, first_token + own_token + 48u, thread, &s3);
}

// 16 channels of all rows and tokens of a subgroup.
fn multiply_turns(
  row: u32,
  token: u32,
  turn: u32,
  s0: ptr<function, Strip>,
  s1: ptr<function, Strip>,
  s2: ptr<function, Strip>,
  s3: ptr<function, Strip>,
) {
  let r0 = weight_matrix(row, turn);
  let r1 = weight_matrix(row + 16u, turn);
  let r2 = weight_matrix(row + 32u, turn);
  let r3 = weight_matrix(row + 48u, turn);
  multiply(token_matrix(token, turn), r0, r1, r2, r3, s0);
  multiply(token_matrix(token + 16u, turn), r0, r1, r2, r3, s1);
  multiply(token_matrix(token + 32u, turn), r0, r1, r2, r3, s2);
  multiply(token_matrix(token + 48u, turn), r0, r1, r2, r3, s3);
}

// 16 channels of 16 rows; of 16 tokens. Offsets and strides of matrices count vectors, the array's elements.
fn weight_matrix(row: u32, turn: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, row * STRIDE + turn, STRIDE);
}

fn token_matrix(token: u32, turn: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&token_tile, token * STRIDE + turn, STRIDE);
}

fn multiply(left: Left, r0: Right, r1: Right, r2: Right, r3: Right, sums: ptr<function, Strip>) {
  (*sums)[0] = subgroupMatrixMultiplyAccumulate(left, r0, (*sums)[0]);
  (*sums)[1] = subgroupMatrixMultiplyAccumulate(left, r1, (*sums)[1]);
  (*sums)[2] = subgroupMatrixMultiplyAccumulate(left, r2, (*sums)[2]);
  (*sums)[3] = subgroupMatrixMultiplyAccumulate(left, r3, (*sums)[3]);
}

fn fetch_turns(weights: ptr<function, Weights>, row: u32, step: u32) {
  let turn = step * STEP_TURNS;
  fetch_weights(weights, row, turn, 0u);
  fetch_weights(weights, row, turn + 1u, 1u);
  fetch_weights(weights, row, turn + 2u, 2u);
  fetch_weights(weights, row, turn + 3u, 3u);
}

fn put_turns(weights: ptr<function, Weights>, tile_row: u32, step: u32) {
  let turn = step * STEP_TURNS;
  put_weights(weights, tile_row, turn, 0u, 0u);
  put_weights(weights, tile_row, turn + 1u, 8u, 1u);
  put_weights(weights, tile_row, turn + 2u, 16u, 2u);
  put_weights(weights, tile_row, turn + 3u, 24u, 3u);
}

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_halves(tile_channel, tile_row, halves_of(low, high));
}

fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  weight_tile[tile_row * STRIDE + tile_channel / 8u] = words;
}

fn halves_of(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}

fn add_to_weight(tile_channel: u32, tile_row: u32, value: f32) {
  let at = tile_row * STRIDE + tile_channel / 8u;
  let word = tile_channel / 2u % 4u;
  let added = select(vec2(value, 0.0), vec2(0.0, value), tile_channel % 2u == 1u);
  weight_tile[at][word] = pack2x16float(unpack2x16float(weight_tile[at][word]) + added);
}

// Neighbouring threads load neighbouring channels of a token.
fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let token = first_token + thread / STEP_TURNS;
  let chunk = 2u * (step * STEP_TURNS + thread % STEP_TURNS);
  return Activations(
    activations_at(token, chunk),
    activations_at(token, chunk + 1u),
    activations_at(token + 32u, chunk),
    activations_at(token + 32u, chunk + 1u),
    activations_at(token + 64u, chunk),
    activations_at(token + 64u, chunk + 1u),
    activations_at(token + 96u, chunk),
    activations_at(token + 96u, chunk + 1u),
  );
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let at = thread / STEP_TURNS * STRIDE + thread % STEP_TURNS;
  put_tokens(at, (*activations)[0], (*activations)[1]);
  put_tokens(at + 32u * STRIDE, (*activations)[2], (*activations)[3]);
  put_tokens(at + 64u * STRIDE, (*activations)[4], (*activations)[5]);
  put_tokens(at + 96u * STRIDE, (*activations)[6], (*activations)[7]);
}

fn put_tokens(at: u32, low: vec4<f32>, high: vec4<f32>) {
  token_tile[at] = halves_of(low / ACTIVATION_UNIT, high / ACTIVATION_UNIT);
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
