// needs: cells queries
// is: merge_cells
// Sums of four queries while they are merged, in the cells that product/parts/cells.wgsl uses at other times.
fn put_merged_sum(i: u32, sums: Queries) {
  if (i < cell_count) { cell_hi[i] = bitcast<vec4<u32>>(sums); } else { cell_lo[i - cell_count] = bitcast<vec4<u32>>(sums); }
}

fn merged_sum(i: u32) -> Queries {
  if (i < cell_count) { return bitcast<vec4<f32>>(cell_hi[i]); }
  return bitcast<vec4<f32>>(cell_lo[i - cell_count]);
}
