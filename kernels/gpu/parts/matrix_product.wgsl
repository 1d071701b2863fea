// needs: matrix_blocks
// Products of many rows and tokens by subgroups that multiply matrices (tensor cores): the sum over channels of a row's
// weight x a token's activation. Factors are f16, sums f32.
//
// Mapping: a workgroup of 2 x 2 subgroups of 32 lanes, 128 rows x 128 tokens; each subgroup makes 64 rows x 64 tokens,
// 4 x 4 matrices of 16 x 16 that stay in registers. It walks the channels in steps of 32. In a step every thread puts
// its share of weights and activations into workgroup memory; then it asks for what the next step needs while the
// subgroup multiplies. What a thread has under way is written out, never indexed by a loop: registers would become
// memory. workgroup.x is the tile of tokens, y those of rows for each part of the channels.
//
// From what brings the factors:
//   is_idle(first_row, first_token), step_count(), write_rows(row, token, sums of four rows)
//   Weights, start(first_row, thread, part, 0), fetch_turns(weights, first_row, thread, step), put_turns(weights,
//   thread, step)
//   Activations, fetch_activations(first_token, thread, step), put_activations(activations, thread)
override row_tiles: u32 = 0xffffffff;
override run: u32 = 0xffffffff; // steps of a part

const TILE_ROWS = 128u;
const TILE_TOKENS = 128u;
const STRIDE_CHANNELS = 32u;
const STEP_TURNS = 4u;
const ROW_BLOCKS = 8u;
const TOKEN_BLOCKS = 8u;

// 16 tokens of a subgroup, its 64 rows.
alias Strip = array<Sum, 4>;

var<workgroup> weight_tile: array<Block, 8>;
var<workgroup> token_tile: array<Block, 8>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  let first_row = workgroup.y % row_tiles * TILE_ROWS;
  if (is_idle(first_row, first_token)) { return; }
  let part = workgroup.y / row_tiles;
  let first = part * run;
  let end = min(first + run, step_count());
  let row_block = thread / 32u % 2u * 4u;
  let token_block = thread / 64u * 4u;
  var weights = start(first_row, thread, part, workgroup.z);
  fetch_turns(&weights, first_row, thread, first);
  var activations = fetch_activations(first_token, thread, first);
  var s0: Strip;
  var s1: Strip;
  var s2: Strip;
  var s3: Strip;
  for (var step = first; step < end; step++) {
    workgroupBarrier();
    put_turns(&weights, thread, step);
    put_activations(&activations, thread);
    workgroupBarrier();
    let next = min(step + 1u, end - 1u);
    fetch_turns(&weights, first_row, thread, next);
    activations = fetch_activations(first_token, thread, next);
    multiply_half(row_block, token_block, false, &s0, &s1, &s2, &s3);
    multiply_half(row_block, token_block, true, &s0, &s1, &s2, &s3);
  }
  let row = first_row + 16u * row_block;
  let token = first_token + 16u * token_block;
  write_strip(row, token, thread, &s0);
  write_strip(row, token + 16u, thread, &s1);
  write_strip(row, token + 32u, thread, &s2);
  write_strip(row, token + 48u, thread, &s3);
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
