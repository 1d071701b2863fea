// needs: halves matrices
// Factors and sums of the tiles whose subgroups multiply matrices. Activations are made a sixteenth, which is exact and
// undone at the end: a model's largest would exceed f16.
//
// Workgroup memory holds blocks of 16 rows or tokens x 32 channels, each an array of its own: so that a matrix lies at a
// constant place in its array, which Dawn's compiler sees to be within bounds. Elsewhere it would put the load into a
// branch, through a variable, which costs as much as all else does.
//
// From the tile: THREADS, STEP_TURNS, TURN_SLOTS, TOKEN_BLOCKS, the blocks of a step's first 32 channels, and
//   weight_tile, token_tile  [32 channels][16 rows or tokens]: blocks
// From the kernel: TURNS_TOGETHER, the turns of a row that a thread brings one after the other.
const ACTIVATION_UNIT = 16.0;

// [row or token][channel / 8], eight f16 each; one more than they need, for other memory banks.
const STRIDE = 5u;
alias Block = array<vec4<u32>, 80>;
// The weights' blocks of a step's first 32 channels.
const ROW_BLOCKS = 8u;

// Threads that bring a row's weights of a step.
const ROW_THREADS = STEP_TURNS / TURNS_TOGETHER;

// Row of the matrix whose weights a thread brings in one of its slots, and their turn in the step.
fn slot_row(first_row: u32, thread: u32, slot: u32) -> u32 {
  return min(first_row + slot_tile_row(thread, slot), rows - 1u);
}

fn slot_tile_row(thread: u32, slot: u32) -> u32 {
  return thread / ROW_THREADS + slot / TURNS_TOGETHER * (THREADS / ROW_THREADS);
}

fn slot_turn(thread: u32, slot: u32) -> u32 {
  return thread % ROW_THREADS * TURNS_TOGETHER + slot % TURNS_TOGETHER;
}

fn fetch_slot(weights: ptr<function, Weights>, first_row: u32, thread: u32, step: u32, slot: u32) {
  fetch_weights(weights, slot_row(first_row, thread, slot), step * STEP_TURNS + slot_turn(thread, slot), slot);
}

fn put_slot(weights: ptr<function, Weights>, thread: u32, step: u32, slot: u32) {
  let turn = slot_turn(thread, slot);
  put_weights(weights, slot_tile_row(thread, slot), step * STEP_TURNS + turn, 8u * turn, slot);
}

fn put_tokens(tile_token: u32, turn: u32, low: vec4<f32>, high: vec4<f32>) {
  let block = turn / 4u * TOKEN_BLOCKS + tile_token / 16u;
  token_tile[block][place_in_block(tile_token, turn)] = halves_of(low / ACTIVATION_UNIT, high / ACTIVATION_UNIT);
}

fn place_in_block(tile_row: u32, turn: u32) -> u32 {
  return tile_row % 16u * STRIDE + turn % 4u;
}

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_halves(tile_channel, tile_row, halves_of(low, high));
}

fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  let turn = tile_channel / 8u;
  weight_tile[turn / 4u * ROW_BLOCKS + tile_row / 16u][place_in_block(tile_row, turn)] = words;
}

fn add_to_weight(tile_channel: u32, tile_row: u32, value: f32) {
  let turn = tile_channel / 8u;
  let block = turn / 4u * ROW_BLOCKS + tile_row / 16u;
  let at = place_in_block(tile_row, turn);
  let word = tile_channel / 2u % 4u;
  let added = select(vec2(value, 0.0), vec2(0.0, value), tile_channel % 2u == 1u);
  weight_tile[block][at][word] = pack2x16float(unpack2x16float(weight_tile[block][at][word]) + added);
}

// The first or last 16 channels of a block. Offsets and strides of matrices count vectors, the array's elements.
fn weight_matrix(block: u32, is_last: bool) -> Right {
  if (is_last) { return subgroupMatrixLoad<Right, col_major>(&weight_tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Right, col_major>(&weight_tile[block], 0u, STRIDE);
}

fn token_matrix(block: u32, is_last: bool) -> Left {
  if (is_last) { return subgroupMatrixLoad<Left, row_major>(&token_tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Left, row_major>(&token_tile[block], 0u, STRIDE);
}

// Puts a matrix of sums into a block of the weights' memory, on its way out: [token][row / 4].
fn put_sums(block: u32, sums: Sum) {
  subgroupMatrixStore<row_major>(&weight_tile[block], 0u, sums, 4u);
}

// Sums of four rows for a token, of the 64 such in a matrix.
fn sums_at(block: u32, quad: u32) -> vec4<f32> {
  return ACTIVATION_UNIT * bitcast<vec4<f32>>(weight_tile[block][quad]);
}
