// needs: weight_slots matrix_product turns
// is: tile
// Matrix-matrix product for many tokens by subgroups that multiply matrices (tensor cores): y[t, r] = sum over c of
// w[r, c] x[t, c], for any kind of weights.
//
// From the kernel: the same as for wide_tile.wgsl, and what weight_slots.wgsl says.
const THREADS = 128u;
// Turns from one of a thread's own to the next.
const TURN_STRIDE = 1u;
const TURN_SLOTS = 4u;

fn is_idle(first_row: u32, first_token: u32) -> bool {
  return first_token >= range.tokens;
}

fn step_count() -> u32 {
  return (channels + STRIDE_CHANNELS - 1u) / STRIDE_CHANNELS;
}

fn start(first_row: u32, thread: u32, part: u32, always_zero: u32) -> Weights {
  start_part(part, TILE_TOKENS);
  return start_weights(slot_row(first_row, thread, 0u), always_zero);
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
