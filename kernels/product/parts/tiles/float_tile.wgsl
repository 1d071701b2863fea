// Weights of a tile as f32, for both shapes that multiply them so. From the tile: `weight_tile`.

fn put_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] = value;
}

fn add_to_weight(channel: u32, tile_row: u32, value: f32) {
  weight_tile[channel][tile_row / 4u][tile_row % 4u] += value;
}

fn put_eight(tile_channel: u32, tile_row: u32, low: vec4<f32>, high: vec4<f32>) {
  put_weight(tile_channel, tile_row, low.x);
  put_weight(tile_channel + 1u, tile_row, low.y);
  put_weight(tile_channel + 2u, tile_row, low.z);
  put_weight(tile_channel + 3u, tile_row, low.w);
  put_weight(tile_channel + 4u, tile_row, high.x);
  put_weight(tile_channel + 5u, tile_row, high.y);
  put_weight(tile_channel + 6u, tile_row, high.z);
  put_weight(tile_channel + 7u, tile_row, high.w);
}

// Eight f16, two in a word.
fn put_halves(tile_channel: u32, tile_row: u32, words: vec4<u32>) {
  let low = vec4(unpack2x16float(words.x), unpack2x16float(words.y));
  put_eight(tile_channel, tile_row, low, vec4(unpack2x16float(words.z), unpack2x16float(words.w)));
}
