// needs: token_range
// Where a prompt's attention finds keys and values in a cache. From the kernel: Place, `heads`, `key_value_heads`.

fn cache_head(place: Place) -> u32 {
  return (range.sequence + place.sequence) * key_value_heads + place.head / (heads / key_value_heads);
}

// The last key stands for those past the end.
fn cache_token(place: Place, key: u32) -> u32 {
  return min(key, place.end_key - 1u);
}
