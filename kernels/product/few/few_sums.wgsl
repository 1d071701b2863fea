// needs: part_sums outputs
// Adds up parts of the channels and the outliers, see part_sums.wgsl: y[t, r] is that sum, or what becomes of it.
//
// Bindings, beside those of part_sums.wgsl:
//   4 y  f32 [tokens, token_rows], of which `rows` from `first_row` on are written; or silu_product's, half as many
//
// Mapping: a thread four elements of y; workgroup.y is the token.
override token_rows: u32 = 1;
override first_row: u32 = 0;
override output_kind: u32 = 0; // see product/parts/outputs.wgsl

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let outputs = rows / rows_per_output();
  let row = 4u * id.x;
  if (row >= outputs || id.y >= range.tokens) { return; }
  var sum = sum_four(id.x, id.y);
  if (output_kind == SILU_PRODUCT) {
    // Rows come in eights: those of up begin with a four.
    let up = sum_four(id.x + outputs / 4u, id.y);
    sum = vec4(
      silu_product(sum.x, up.x),
      silu_product(sum.y, up.y),
      silu_product(sum.z, up.z),
      silu_product(sum.w, up.w),
    );
  }
  let at = id.y * token_rows + first_row + row;
  write_one(at, sum.x);
  if (row + 1u < outputs) { write_one(at + 1u, sum.y); }
  if (row + 2u < outputs) { write_one(at + 2u, sum.z); }
  if (row + 3u < outputs) { write_one(at + 3u, sum.w); }
}

fn write_one(at: u32, sum: f32) {
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}
