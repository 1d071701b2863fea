// is: exchange
// Exchange between lanes by subgroup shuffles.
fn exchange(value: f32, thread: u32, distance: u32) -> f32 {
  return subgroupShuffleXor(value, distance);
}
