// needs: weight_slots turns
// is: tile
// Matrix-matrix product for few tokens by subgroups that multiply matrices (tensor cores), for any kind of weights.
//
// Mapping: a workgroup of four subgroups of 32 lanes makes 128 rows x 16 tokens, each subgroup 32 rows. It walks its
// part of the channels in steps of 64, of which every thread puts its share into workgroup memory; then it asks for
// what the next step needs while the subgroup multiplies. Several workgroups share a multiprocessor: while one waits
// another decodes. workgroup.x is the tile of tokens, y those of rows for each
// part of the channels.
//
// From the kernel: the same as for wide_tile.wgsl, and what weight_slots.wgsl says.
override row_tiles: u32 = 0xffffffff;
override run: u32 = 0xffffffff; // steps of a part

const THREADS = 128u;
const TILE_ROWS = 128u;
const TILE_TOKENS = 16u;
const STRIDE_CHANNELS = 64u;
const STEP_TURNS = 8u;
const TURN_STRIDE = 1u;
const TURN_SLOTS = 8u;
const ROW_BLOCKS = 8u;
const TOKEN_BLOCKS = 1u;

var<workgroup> weight_tile: array<Block, 16>;
var<workgroup> token_tile: array<Block, 2>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  if (first_token >= range.tokens) { return; }
  let tile_first_row = workgroup.y % row_tiles * TILE_ROWS;
  let part = workgroup.y / row_tiles;
  start_part(part, TILE_TOKENS);
  let first = part * run;
  let end = min(first + run, (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS);
  let own_row = 32u * (thread / 32u);
  let token = first_token + thread / STEP_TURNS;
  let own_turn = thread % STEP_TURNS;
  var weights = start_weights(slot_row(tile_first_row, thread, 0u), workgroup.z);
  fetch_turns(&weights, tile_first_row, thread, first);
  var activations = turn_at(token, first * STEP_TURNS + own_turn);
  var s0: Sum;
  var s1: Sum;
  for (var step = first; step < end; step++) {
    workgroupBarrier();
    put_turns(&weights, thread, step);
    put_token(thread / STEP_TURNS, own_turn, halves_of_turn(activations));
    workgroupBarrier();
    let next = min(step + 1u, end - 1u);
    fetch_turns(&weights, tile_first_row, thread, next);
    activations = turn_at(token, next * STEP_TURNS + own_turn);
    multiply_half(own_row / 16u, 0u, false, &s0, &s1);
    multiply_half(own_row / 16u, 0u, true, &s0, &s1);
    multiply_half(own_row / 16u + ROW_BLOCKS, 1u, false, &s0, &s1);
    multiply_half(own_row / 16u + ROW_BLOCKS, 1u, true, &s0, &s1);
  }
  workgroupBarrier();
  let block = own_row / 16u;
  put_sums(block, s0);
  put_sums(block + 1u, s1);
  workgroupBarrier();
  // Four rows of a token a thread; its neighbours write the rows beside.
  let quads = TILE_ROWS / 4u;
  let quad = thread % quads;
  for (var tile_token = thread / quads; tile_token < TILE_TOKENS; tile_token += THREADS / quads) {
    let sums = sums_at(quad / 4u, 4u * tile_token + quad % 4u);
    write_rows(tile_first_row + 4u * quad, first_token + tile_token, sums);
  }
}

// 16 channels of the subgroup's rows and all tokens, which begin with these blocks.
fn multiply_half(row: u32, token: u32, is_last: bool, s0: ptr<function, Sum>, s1: ptr<function, Sum>) {
  let left = token_matrix(token, is_last);
  *s0 = subgroupMatrixMultiplyAccumulate(left, weight_matrix(row, is_last), *s0);
  *s1 = subgroupMatrixMultiplyAccumulate(left, weight_matrix(row + 1u, is_last), *s1);
}

fn fetch_turns(weights: ptr<function, Weights>, first_row: u32, thread: u32, step: u32) {
  fetch_slot(weights, first_row, thread, step, 0u);
  fetch_slot(weights, first_row, thread, step, 1u);
  fetch_slot(weights, first_row, thread, step, 2u);
  fetch_slot(weights, first_row, thread, step, 3u);
  fetch_slot(weights, first_row, thread, step, 4u);
  fetch_slot(weights, first_row, thread, step, 5u);
  fetch_slot(weights, first_row, thread, step, 6u);
  fetch_slot(weights, first_row, thread, step, 7u);
}

fn put_turns(weights: ptr<function, Weights>, thread: u32, step: u32) {
  put_slot(weights, thread, step, 0u);
  put_slot(weights, thread, step, 1u);
  put_slot(weights, thread, step, 2u);
  put_slot(weights, thread, step, 3u);
  put_slot(weights, thread, step, 4u);
  put_slot(weights, thread, step, 5u);
  put_slot(weights, thread, step, 6u);
  put_slot(weights, thread, step, 7u);
}
