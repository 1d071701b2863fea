// Writing sums of four consecutive rows for one token. Needs `rows`, `token_rows`, `first_row`, `add_to_y`, `range`, `y`.

fn write_rows(row: u32, token: u32, sums: vec4<f32>) {
  if (token >= range.tokens) { return; }
  let at = token * token_rows + first_row + row;
  if (row < rows) { write_one(at, sums.x); }
  if (row + 1u < rows) { write_one(at + 1u, sums.y); }
  if (row + 2u < rows) { write_one(at + 2u, sums.z); }
  if (row + 3u < rows) { write_one(at + 3u, sums.w); }
}

fn write_one(at: u32, sum: f32) {
  if (add_to_y == 1u) { y[at] += sum; } else { y[at] = sum; }
}
