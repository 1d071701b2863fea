// is: turns
// Activations of matrix_tile.wgsl that are f32 in memory. Neighbouring threads load neighbouring channels of a token.

// Eight channels of the tokens t, t + 32, t + 64 and t + 96 of the tile.
alias Activations = array<vec4<f32>, 8>;

fn fetch_activations(first_token: u32, thread: u32, step: u32) -> Activations {
  let token = first_token + thread / STEP_TURNS;
  let chunk = 2u * (step * STEP_TURNS + thread % STEP_TURNS);
  return Activations(
    activations_at(token, chunk),
    activations_at(token, chunk + 1u),
    activations_at(token + 32u, chunk),
    activations_at(token + 32u, chunk + 1u),
    activations_at(token + 64u, chunk),
    activations_at(token + 64u, chunk + 1u),
    activations_at(token + 96u, chunk),
    activations_at(token + 96u, chunk + 1u),
  );
}

fn put_activations(activations: ptr<function, Activations>, thread: u32) {
  let token = thread / STEP_TURNS;
  let turn = thread % STEP_TURNS;
  put_token(token, turn, in_units((*activations)[0], (*activations)[1]));
  put_token(token + 32u, turn, in_units((*activations)[2], (*activations)[3]));
  put_token(token + 64u, turn, in_units((*activations)[4], (*activations)[5]));
  put_token(token + 96u, turn, in_units((*activations)[6], (*activations)[7]));
}

