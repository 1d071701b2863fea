// needs: gemm_edges matrix_blocks
// How a kernel's weights come into the blocks of workgroup memory: a thread brings some turns of 8 channels in each
// step.
//
// From the tile: THREADS, STEP_TURNS, TURN_SLOTS, the turns that a thread brings.
// From the kernel: TURNS_TOGETHER, the turns of a row that a thread brings one after the other, and Weights with its
// functions, see wide_tile.wgsl.

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

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_halves(tile_channel, tile_row, halves_of(low, high));
}

fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  put_row(tile_row, tile_channel / 8u, words);
}

fn add_to_weight(tile_channel: u32, tile_row: u32, value: f32) {
  let turn = tile_channel / 8u;
  let block = turn / 4u * ROW_BLOCKS + tile_row / 16u;
  let at = place_in_block(tile_row, turn);
  let word = tile_channel / 2u % 4u;
  let added = select(vec2(value, 0.0), vec2(0.0, value), tile_channel % 2u == 1u);
  weight_tile[block][at][word] = pack2x16float(unpack2x16float(weight_tile[block][at][word]) + added);
}
