// The tokens that a prefill kernel works on, of one sequence or of several of equal length one after the other: the first
// binding of each kernel.
struct TokenRange {
  tokens: u32,
  // Position of the first token in each sequence.
  first_position: u32,
  // Index of the first sequence in a cache of several.
  sequence: u32,
  // Tokens of each sequence.
  sequence_tokens: u32,
}

@group(0) @binding(0) var<uniform> range: TokenRange;
