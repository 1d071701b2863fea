// needs: token_range
// Reading activations and writing sums, for all shapes of tile.
// From the kernel: `x`, `y`; from the tile STRIDE_CHANNELS, of which it takes a whole number.
override rows: u32 = 1;
override token_rows: u32 = 1;
override first_row: u32 = 0;
override channels: u32 = 4; // a multiple of 4
override add_to_y: u32 = 0; // 1: y += W x

// Four channels of a token; the last token in place of those past the end, zeros for channels past the end.
fn activations_at(token: u32, chunk: u32) -> vec4<f32> {
  let chunks = channels / 4u;
  let first = min(token, range.tokens - 1u) * chunks;
  if (channels % STRIDE_CHANNELS == 0u) { return bitcast<vec4<f32>>(x[first + chunk]); }
  return select(vec4(0.0), bitcast<vec4<f32>>(x[first + min(chunk, chunks - 1u)]), chunk < chunks);
}

// Where the sums of a part of the channels begin, of which there may be several for few_sums.wgsl to add up.
var<private> part_first: u32;

fn start_part(part: u32, tile_tokens: u32) {
  part_first = part * ((range.tokens + tile_tokens - 1u) / tile_tokens * tile_tokens) * token_rows;
}

// Sums of four consecutive rows for one token.
fn write_rows(row: u32, token: u32, sums: vec4<f32>) {
  if (token >= range.tokens) { return; }
  let at = part_first + token * token_rows + first_row + row;
  if (row < rows) { write_one(at, sums.x); }
  if (row + 1u < rows) { write_one(at + 1u, sums.y); }
  if (row + 2u < rows) { write_one(at + 2u, sums.z); }
  if (row + 3u < rows) { write_one(at + 3u, sums.w); }
}

fn write_one(at: u32, sum: f32) {
  if (add_to_y == 1u) { y[at] += sum; } else { y[at] = sum; }
}
