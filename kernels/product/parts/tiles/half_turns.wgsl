// is: turns
// Activations of matrix_tile.wgsl that are f16 in memory already, in units: x is vec4<u32> [T, channels / 8].

// Eight channels of the tokens t, t + 32, t + 64 and t + 96 of the tile.
alias Activations = array<vec4<u32>, 4>;

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

// As activations_at.
fn turn_at(token: u32, turn: u32) -> vec4<u32> {
  let turns = channels / 8u;
  let first = min(token, range.tokens - 1u) * turns;
  if (channels % STRIDE_CHANNELS == 0u) { return x[first + turn]; }
  return select(vec4(0u), x[first + min(turn, turns - 1u)], turn < turns);
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let token = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_token(token, turn, (*activations)[0]);
  put_token(token + 32u, turn, (*activations)[1]);
  put_token(token + 64u, turn, (*activations)[2]);
  put_token(token + 96u, turn, (*activations)[3]);
}
