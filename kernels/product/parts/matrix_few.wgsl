// needs: gemm_edges matrix_units
// is: tile
// Matrix-matrix product for few tokens by subgroups that multiply matrices (tensor cores), for any kind of weights:
// sums of parts of the channels, which few_sums.wgsl adds up.
//
// y is f32 [splits, tokens rounded up to 16, token_rows = rows rounded up to fours].
//
// Mapping: a workgroup of four subgroups of 32 lanes makes 128 rows x 16 tokens, each subgroup 32 rows. It walks its
// part of the channels in steps of 64, of which every thread puts its share into workgroup memory; then it asks for
// what the next step needs while the subgroup multiplies. Several workgroups share a multiprocessor: while one waits
// another decodes. workgroup.x is the tile of tokens, y those of rows for each split.
//
// From the kernel: the same as for wide_tile.wgsl, and what matrix_units.wgsl says.
override row_tiles: u32 = 1;
override run: u32 = 1; // steps of a workgroup

const THREADS = 128u;
const TILE_ROWS = 128u;
const TILE_TOKENS = 16u;
const STRIDE_CHANNELS = 64u;
const STEP_TURNS = 8u;
const TURN_STRIDE = 1u;
const TURN_SLOTS = 8u;
const STRIDE = 9u;

// In the end weight_tile holds matrices of sums on their way out, [subgroup][token, row / 4].
var<workgroup> weight_tile: array<vec4<u32>, 1152>;
var<workgroup> token_tile: array<vec4<u32>, 144>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * TILE_TOKENS;
  if (first_token >= range.tokens) { return; }
  let first_row = workgroup.y % row_tiles * TILE_ROWS;
  let split = workgroup.y / row_tiles;
  let first = split * run;
  let end = min(first + run, (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS);
  let own_row = 32u * (thread / 32u);
  let token = first_token + thread / STEP_TURNS;
  let at = thread / STEP_TURNS * STRIDE + thread % STEP_TURNS;
  var weights = start_weights(slot_row(first_row, thread, 0u), workgroup.z);
  fetch_turns(&weights, first_row, thread, first);
  var low = activations_at(token, 2u * (first * STEP_TURNS + thread % STEP_TURNS));
  var high = activations_at(token, 2u * (first * STEP_TURNS + thread % STEP_TURNS) + 1u);
  var s0: Sum;
  var s1: Sum;
  for (var step = first; step < end; step++) {
    workgroupBarrier();
    put_turns(&weights, thread, step);
    put_tokens(at, low, high);
    workgroupBarrier();
    let next = min(step + 1u, end - 1u);
    fetch_turns(&weights, first_row, thread, next);
    low = activations_at(token, 2u * (next * STEP_TURNS + thread % STEP_TURNS));
    high = activations_at(token, 2u * (next * STEP_TURNS + thread % STEP_TURNS) + 1u);
    for (var turn = 0u; turn < STEP_TURNS; turn += 2u) {
      let left = token_matrix(turn);
      s0 = subgroupMatrixMultiplyAccumulate(left, weight_matrix(own_row * STRIDE + turn), s0);
      s1 = subgroupMatrixMultiplyAccumulate(left, weight_matrix((own_row + 16u) * STRIDE + turn), s1);
    }
  }
  workgroupBarrier();
  // A subgroup's share of the weights' memory; a matrix of sums is 64 vectors.
  let sums = thread / 32u * 288u;
  subgroupMatrixStore<row_major>(&weight_tile, sums, s0, 4u);
  subgroupMatrixStore<row_major>(&weight_tile, sums + 64u, s1, 4u);
  workgroupBarrier();
  let padded_token = split * ((range.tokens + TILE_TOKENS - 1u) / TILE_TOKENS * TILE_TOKENS) + first_token;
  write_part(first_row + own_row, padded_token, sums, thread % 32u);
  write_part(first_row + own_row, padded_token, sums, thread % 32u + 32u);
  write_part(first_row + own_row + 16u, padded_token, sums + 64u, thread % 32u);
  write_part(first_row + own_row + 16u, padded_token, sums + 64u, thread % 32u + 32u);
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

fn write_part(row: u32, token: u32, first: u32, quad: u32) {
  let own_row = row + 4u * (quad % 4u);
  if (own_row >= token_rows) { return; }
  let at = (token + quad / 4u) * token_rows + own_row;
  let sums = sums_at(first + quad);
  y[at] = sums.x;
  y[at + 1u] = sums.y;
  y[at + 2u] = sums.z;
  y[at + 3u] = sums.w;
}
