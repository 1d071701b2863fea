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

// A turn of the tokens t, t + 32, t + 64 and t + 96 of the tile; neighbouring threads load neighbouring ones of a token.
alias Activations = array<Turn, 4>;

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let token = first_token + thread / STEP_TURNS;
  let turn = step * STEP_TURNS + thread % STEP_TURNS;
  return Activations(
    turn_at(token, turn),
    turn_at(token + 32u, turn),
    turn_at(token + 64u, turn),
    turn_at(token + 96u, turn),
  );
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let token = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_token(token, turn, halves_of_turn((*activations)[0]));
  put_token(token + 32u, turn, halves_of_turn((*activations)[1]));
  put_token(token + 64u, turn, halves_of_turn((*activations)[2]));
  put_token(token + 96u, turn, halves_of_turn((*activations)[3]));
}
