// is: turns
// Activations of tiles of matrices that are f32 in memory: a turn, eight channels of a token, as a thread has it on its
// way into workgroup memory.
struct Turn {
  low: vec4<f32>,
  high: vec4<f32>,
}

fn turn_at(token: u32, turn: u32) -> Turn {
  return Turn(activations_at(token, 2u * turn), activations_at(token, 2u * turn + 1u));
}

fn halves_of_turn(turn: Turn) -> vec4<u32> {
  return in_units(turn.low, turn.high);
}
