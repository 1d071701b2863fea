// needs: gemm_edges matrix_units
// is: tile
// Matrix-matrix product for many tokens by subgroups that multiply matrices (tensor cores): y[t, r] = sum over c of
// w[r, c] x[t, c], for any kind of weights. Factors are f16, sums f32.
//
// Mapping: a workgroup of 2 x 2 subgroups of 32 lanes, 128 rows x 128 tokens; each subgroup makes 64 rows x 64 tokens,
// 4 x 4 matrices of 16 x 16 that stay in registers. It walks the channels in steps of 32. In a step every thread puts
// its share of weights and activations into workgroup memory; then it asks for what the next step needs while the
// subgroup multiplies. What a thread has under way is written out, never indexed by a loop: registers would become
// memory.
//
// From the kernel: the same as for wide_tile.wgsl, and what matrix_units.wgsl says.
const THREADS = 128u;
const TILE_ROWS = 128u;
const TILE_TOKENS = 128u;
const STRIDE_CHANNELS = 32u;
const STEP_TURNS = 4u;
// Turns from one of a thread's own to the next.
const TURN_STRIDE = 1u;
const TURN_SLOTS = 4u;
const TOKEN_BLOCKS = 8u;

// 16 tokens of a subgroup, its 64 rows.
alias Strip = array<Sum, 4>;

var<workgroup> weight_tile: array<Block, 8>;
var<workgroup> token_tile: array<Block, 8>;

// Eight channels of the tokens t, t + 32, t + 64 and t + 96 of the tile.
alias Activations = array<vec4<f32>, 8>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let first_row = workgroup.y * TILE_ROWS;
  if (first_token >= range.tokens) { return; }
  let steps = (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS;
  let own_row = 64u * (thread / 32u % 2u);
  let own_token = 64u * (thread / 64u);
  var weights = start_weights(slot_row(first_row, thread, 0u), workgroup.z);
  fetch_turns(&weights, first_row, thread, 0u);
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
    fetch_turns(&weights, first_row, thread, next);
    activations = fetch_activations(first_token, thread, next);
    multiply_half(own_row / 16u, own_token / 16u, false, &s0, &s1, &s2, &s3);
    multiply_half(own_row / 16u, own_token / 16u, true, &s0, &s1, &s2, &s3);
  }
  write_strip(first_row + own_row, first_token + own_token, thread, &s0);
  write_strip(first_row + own_row, first_token + own_token + 16u, thread, &s1);
  write_strip(first_row + own_row, first_token + own_token + 32u, thread, &s2);
  write_strip(first_row + own_row, first_token + own_token + 48u, thread, &s3);
}

// 16 channels of all rows and tokens of a subgroup, which begin with these blocks.
fn multiply_half(
  row: u32,
  token: u32,
  is_last: bool,
  s0: ptr<function, Strip>,
  s1: ptr<function, Strip>,
  s2: ptr<function, Strip>,
  s3: ptr<function, Strip>,
) {
  let r0 = weight_matrix(row, is_last);
  let r1 = weight_matrix(row + 1u, is_last);
  let r2 = weight_matrix(row + 2u, is_last);
  let r3 = weight_matrix(row + 3u, is_last);
  multiply(token_matrix(token, is_last), r0, r1, r2, r3, s0);
  multiply(token_matrix(token + 1u, is_last), r0, r1, r2, r3, s1);
  multiply(token_matrix(token + 2u, is_last), r0, r1, r2, r3, s2);
  multiply(token_matrix(token + 3u, is_last), r0, r1, r2, r3, s3);
}

fn multiply(left: Left, r0: Right, r1: Right, r2: Right, r3: Right, sums: ptr<function, Strip>) {
  (*sums)[0] = subgroupMatrixMultiplyAccumulate(left, r0, (*sums)[0]);
  (*sums)[1] = subgroupMatrixMultiplyAccumulate(left, r1, (*sums)[1]);
  (*sums)[2] = subgroupMatrixMultiplyAccumulate(left, r2, (*sums)[2]);
  (*sums)[3] = subgroupMatrixMultiplyAccumulate(left, r3, (*sums)[3]);
}

fn fetch_turns(weights: ptr<function, Weights>, first_row: u32, thread: u32, step: u32) {
  fetch_slot(weights, first_row, thread, step, 0u);
  fetch_slot(weights, first_row, thread, step, 1u);
  fetch_slot(weights, first_row, thread, step, 2u);
  fetch_slot(weights, first_row, thread, step, 3u);
}

fn put_turns(weights: ptr<function, Weights>, thread: u32, step: u32) {
  put_slot(weights, thread, step, 0u);
  put_slot(weights, thread, step, 1u);
  put_slot(weights, thread, step, 2u);
  put_slot(weights, thread, step, 3u);
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
  let token = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_tokens(token, turn, (*activations)[0], (*activations)[1]);
  put_tokens(token + 32u, turn, (*activations)[2], (*activations)[3]);
  put_tokens(token + 64u, turn, (*activations)[4], (*activations)[5]);
  put_tokens(token + 96u, turn, (*activations)[6], (*activations)[7]);
}

fn write_strip(row: u32, token: u32, thread: u32, strip: ptr<function, Strip>) {
  write_pair(row, token, thread, (*strip)[0], (*strip)[1]);
  write_pair(row + 32u, token, thread, (*strip)[2], (*strip)[3]);
}

// A subgroup has two blocks for its sums; a lane writes four rows of two tokens of each matrix.
fn write_pair(row: u32, token: u32, thread: u32, low: Sum, high: Sum) {
  let block = thread / 32u * 2u;
  let lane = thread % 32u;
  workgroupBarrier();
  put_sums(block, low);
  put_sums(block + 1u, high);
  workgroupBarrier();
  write_quad(row, token, block, lane);
  write_quad(row, token, block, lane + 32u);
  write_quad(row + 16u, token, block + 1u, lane);
  write_quad(row + 16u, token, block + 1u, lane + 32u);
}

fn write_quad(row: u32, token: u32, block: u32, quad: u32) {
  write_rows(row + 4u * (quad % 4u), token + quad / 4u, sums_at(block, quad));
}
