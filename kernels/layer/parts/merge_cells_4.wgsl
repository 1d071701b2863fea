// needs: cells queries
// is: merge_cells
// Sums of four queries while they are merged, in all three parts of the cells that product/parts/cells.wgsl uses at other
// times.
fn put_merged_sum(i: u32, sums: Queries) {
  if (i < cell_count) {
    cell_hi[i] = bitcast<vec4<u32>>(sums);
  } else if (i < 2u * cell_count) {
    cell_lo[i - cell_count] = bitcast<vec4<u32>>(sums);
  } else {
    let at = 2u * (i - 2u * cell_count);
    cell_sum[at] = sums.xy;
    cell_sum[at + 1u] = sums.zw;
  }
}

fn merged_sum(i: u32) -> Queries {
  if (i < cell_count) { return bitcast<vec4<f32>>(cell_hi[i]); }
  if (i < 2u * cell_count) { return bitcast<vec4<f32>>(cell_lo[i - cell_count]); }
  let at = 2u * (i - 2u * cell_count);
  return vec4(cell_sum[at], cell_sum[at + 1u]);
}
