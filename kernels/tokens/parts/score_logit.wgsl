// is: score
// Logits as they are: the best is the most likely token.
fn scored(sequence_index: u32, i: u32) -> Best {
  return candidate(logits[sequence_index * length + i], i);
}
