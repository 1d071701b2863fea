// needs: cache_rows
// Storing rows of keys and values, eight channels at a time.

fn cache_key(head: u32, token: u32, eight: u32, key: Row) {
  keys[key_vectors(head) + token * (head_size / 8u) + eight] = key.words;
  if (HAS_FACTORS && eight == 0u) { keys[factors_at(head, token)].x = bitcast<u32>(row_factor(key)); }
}

fn cache_value(head: u32, token: u32, eight: u32, value: Row) {
  values[(head * capacity + token) * (head_size / 8u) + eight] = value.words;
  if (HAS_FACTORS && eight == 0u) { keys[factors_at(head, token)].y = bitcast<u32>(row_factor(value)); }
}
