// needs: gemm_edges matrix_units
// is: tile
// Matrix-matrix product for many tokens by subgroups that multiply matrices (tensor cores): y[t, r] = sum over c of
// w[r, c] x[t, c], for any kind of weights. Factors are f16, sums f32.
//
// Mapping: a workgroup of 2 x 4 subgroups of 32 lanes, 128 rows x 128 tokens; each subgroup makes 64 rows x 32 tokens,
// 4 x 2 matrices of 16 x 16 that stay in registers. It walks the channels in steps of 32, through two buffers in
// workgroup memory: while a step is multiplied from one, every thread puts its share of the next step into the other
// and asks for what the step after that needs, so that a step has a single barrier. Rows and tokens have 8 channels more
// there than they need: for other memory banks. What a thread has under way is written out, never indexed by a loop:
// registers would become memory.
//
// From the kernel: the same as for wide_tile.wgsl, and what matrix_units.wgsl says.
const THREADS = 256u;
const TILE_ROWS = 128u;
const TILE_TOKENS = 128u;
// Of two steps.
const STRIDE_CHANNELS = 64u;
const STEP_TURNS = 4u;
// A thread's own turns of a row in half a block begin within these.
const TURN_STRIDE = 4u;
const TURN_SLOTS = 2u;
// Vectors from one row or token to the next, and of a buffer.
const STRIDE = 5u;
const BUFFER = 640u;

// 16 tokens of a subgroup, its 64 rows.
alias Strip = array<Sum, 4>;

// [buffer][row or token of the tile][channel of the step / 8]: eight f16 each. In the end weight_tile holds matrices of
// sums on their way out, [subgroup][token, row / 4].
var<workgroup> weight_tile: array<vec4<u32>, 1280>;
var<workgroup> token_tile: array<vec4<u32>, 1280>;

// Eight channels of the tokens t and t + 64 of the tile.
alias Activations = array<vec4<f32>, 4>;

// Who works on what.
struct Place {
  thread: u32,
  first_token: u32,
  first_row: u32,
  steps: u32,
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let steps = (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS * 2u;
  let first_token = workgroup.x * TILE_TOKENS;
  if (first_token >= range.tokens) { return; }
  let place = Place(thread, first_token, workgroup.y * TILE_ROWS, steps);
  let own_row = 64u * (thread / 32u % 2u);
  let own_token = 32u * (thread / 64u);
  var weights = start_weights(slot_row(place.first_row, place.thread, 0u), workgroup.z);
  var activations: Activations;
  var s0: Strip;
  var s1: Strip;
  fetch_step(place, 0u, &weights, &activations);
  put_step(place, 0u, 0u, &weights, &activations);
  fetch_step(place, 1u, &weights, &activations);
  workgroupBarrier();
  for (var step = 0u; step < steps; step += 2u) {
    multiply_step(own_row, own_token, 0u, &s0, &s1);
    put_step(place, step + 1u, 1u, &weights, &activations);
    fetch_step(place, step + 2u, &weights, &activations);
    workgroupBarrier();
    multiply_step(own_row, own_token, 1u, &s0, &s1);
    put_step(place, step + 2u, 0u, &weights, &activations);
    fetch_step(place, step + 3u, &weights, &activations);
    workgroupBarrier();
  }
  write_strip(place.first_row + own_row, place.first_token + own_token, thread, &s0);
  write_strip(place.first_row + own_row, place.first_token + own_token + 16u, thread, &s1);
}

// Asks for the thread's share of a step; past the end for some that is there.
fn fetch_step(place: Place, step: u32, weights: ptr<function, Weights>, activations: ptr<function, Activations>) {
  let next = min(step, place.steps - 1u);
  fetch_weights(weights, slot_row(place.first_row, place.thread, 0u), next * STEP_TURNS + slot_turn(place.thread, 0u), 0u);
  fetch_weights(weights, slot_row(place.first_row, place.thread, 1u), next * STEP_TURNS + slot_turn(place.thread, 1u), 1u);
  // Neighbouring threads load neighbouring channels of a token.
  let token = place.first_token + place.thread / STEP_TURNS;
  let chunk = 2u * (next * STEP_TURNS + place.thread % STEP_TURNS);
  (*activations)[0] = activations_at(token, chunk);
  (*activations)[1] = activations_at(token, chunk + 1u);
  (*activations)[2] = activations_at(token + 64u, chunk);
  (*activations)[3] = activations_at(token + 64u, chunk + 1u);
}

fn put_step(
  place: Place,
  step: u32,
  buffer: u32,
  weights: ptr<function, Weights>,
  activations: ptr<function, Activations>,
) {
  put_slot(place, step, buffer, weights, 0u);
  put_slot(place, step, buffer, weights, 1u);
  let at = buffer * BUFFER + place.thread / STEP_TURNS * STRIDE + place.thread % STEP_TURNS;
  put_tokens(at, (*activations)[0], (*activations)[1]);
  put_tokens(at + 64u * STRIDE, (*activations)[2], (*activations)[3]);
}

fn put_slot(place: Place, step: u32, buffer: u32, weights: ptr<function, Weights>, slot: u32) {
  let turn = slot_turn(place.thread, slot);
  put_weights(weights, buffer * TILE_ROWS + slot_tile_row(place.thread, slot), step * STEP_TURNS + turn, 8u * turn, slot);
}

fn multiply_step(row: u32, token: u32, buffer: u32, s0: ptr<function, Strip>, s1: ptr<function, Strip>) {
  multiply_turns(row * STRIDE + buffer * BUFFER, token * STRIDE + buffer * BUFFER, s0, s1);
  multiply_turns(row * STRIDE + buffer * BUFFER + 2u, token * STRIDE + buffer * BUFFER + 2u, s0, s1);
}

// 16 channels of all rows and tokens of a subgroup, from these vectors on.
fn multiply_turns(row: u32, token: u32, s0: ptr<function, Strip>, s1: ptr<function, Strip>) {
  let r0 = weight_matrix(row);
  let r1 = weight_matrix(row + 16u * STRIDE);
  let r2 = weight_matrix(row + 32u * STRIDE);
  let r3 = weight_matrix(row + 48u * STRIDE);
  multiply(token_matrix(token), r0, r1, r2, r3, s0);
  multiply(token_matrix(token + 16u * STRIDE), r0, r1, r2, r3, s1);
}

fn multiply(left: Left, r0: Right, r1: Right, r2: Right, r3: Right, sums: ptr<function, Strip>) {
  (*sums)[0] = subgroupMatrixMultiplyAccumulate(left, r0, (*sums)[0]);
  (*sums)[1] = subgroupMatrixMultiplyAccumulate(left, r1, (*sums)[1]);
  (*sums)[2] = subgroupMatrixMultiplyAccumulate(left, r2, (*sums)[2]);
  (*sums)[3] = subgroupMatrixMultiplyAccumulate(left, r3, (*sums)[3]);
}

fn write_strip(row: u32, token: u32, thread: u32, strip: ptr<function, Strip>) {
  // A subgroup's share of the weights' memory; a matrix of sums is 64 vectors.
  let first = thread / 32u * 160u;
  write_pair(row, token, first, thread % 32u, (*strip)[0], (*strip)[1]);
  write_pair(row + 32u, token, first, thread % 32u, (*strip)[2], (*strip)[3]);
}

// A lane writes four rows of two tokens of each matrix.
fn write_pair(row: u32, token: u32, first: u32, lane: u32, low: Sum, high: Sum) {
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&weight_tile, first, low, 4u);
  subgroupMatrixStore<row_major>(&weight_tile, first + 64u, high, 4u);
  workgroupBarrier();
  write_quad(row, token, first, lane);
  write_quad(row, token, first, lane + 32u);
  write_quad(row + 16u, token, first + 64u, lane);
  write_quad(row + 16u, token, first + 64u, lane + 32u);
}

fn write_quad(row: u32, token: u32, first: u32, quad: u32) {
  write_rows(row + 4u * (quad % 4u), token + quad / 4u, sums_at(first + quad));
}
