// needs: part_sums
// Adds up parts of the channels and the outliers, see part_sums.wgsl: y[t, r] is that sum, or has it added.
//
// Bindings, beside those of part_sums.wgsl:
//   4 y  f32 [tokens, token_rows], of which `rows` from `first_row` on are written
//
// Mapping: a thread four elements of y; workgroup.y is the token.
override token_rows: u32 = 1;
override first_row: u32 = 0;
override add_to_y: u32 = 0;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = 4u * id.x;
  if (row >= rows || id.y >= range.tokens) { return; }
  let sum = sum_four(id.x, id.y);
  let at = id.y * token_rows + first_row + row;
  write_one(at, sum.x);
  if (row + 1u < rows) { write_one(at + 1u, sum.y); }
  if (row + 2u < rows) { write_one(at + 2u, sum.z); }
  if (row + 3u < rows) { write_one(at + 3u, sum.w); }
}

fn write_one(at: u32, sum: f32) {
  if (add_to_y == 1u) { y[at] += sum; } else { y[at] = sum; }
}
