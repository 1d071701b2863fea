// The tokens that a prefill kernel works on: the first binding of each.
struct TokenRange {
  tokens: u32,
  // Position of the first token in its sequence.
  first_position: u32,
  // Index of the sequence in a cache of several.
  sequence: u32,
}

@group(0) @binding(0) var<uniform> range: TokenRange;
