// needs: halves matrices
// Factors and sums of the tiles whose subgroups multiply matrices. Activations are made a sixteenth, which is exact and
// undone at the end: a model's largest would exceed f16.
//
// From the tile: THREADS, STEP_TURNS, TURN_SLOTS, STRIDE, the vectors from one row or token to the next, and
//   weight_tile, token_tile  [row or token][channel / 8]: eight f16 each
// From the kernel: TURNS_TOGETHER, the turns of a row that a thread brings one after the other.
const ACTIVATION_UNIT = 16.0;

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

fn put_tokens(at: u32, low: vec4<f32>, high: vec4<f32>) {
  token_tile[at] = halves_of(low / ACTIVATION_UNIT, high / ACTIVATION_UNIT);
}

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_halves(tile_channel, tile_row, halves_of(low, high));
}

fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  weight_tile[tile_row * STRIDE + tile_channel / 8u] = words;
}

fn add_to_weight(tile_channel: u32, tile_row: u32, value: f32) {
  let at = tile_row * STRIDE + tile_channel / 8u;
  let word = tile_channel / 2u % 4u;
  let added = select(vec2(value, 0.0), vec2(0.0, value), tile_channel % 2u == 1u);
  weight_tile[at][word] = pack2x16float(unpack2x16float(weight_tile[at][word]) + added);
}

// 16 channels of 16 rows; of 16 tokens. Offsets and strides of matrices count vectors, the array's elements.
fn weight_matrix(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, at, STRIDE);
}

fn token_matrix(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&token_tile, at, STRIDE);
}

// Four sums that a matrix was stored to the weights' memory with.
fn sums_at(at: u32) -> vec4<f32> {
  return ACTIVATION_UNIT * bitcast<vec4<f32>>(weight_tile[at]);
}
