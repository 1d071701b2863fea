// is: turns
// As float_turns.wgsl, of activations that are f16 in memory already, in units: x is vec4<u32> [T, channels / 8].
alias Turn = vec4<u32>;

fn turn_at(token: u32, turn: u32) -> Turn {
  let turns = channels / 8u;
  let first = min(token, range.tokens - 1u) * turns;
  if (channels % STRIDE_CHANNELS == 0u) { return x[first + turn]; }
  return select(vec4(0u), x[first + min(turn, turns - 1u)], turn < turns);
}

fn halves_of_turn(turn: Turn) -> vec4<u32> {
  return turn;
}
