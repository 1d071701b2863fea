// needs: cells queries
// is: merge_cells
// Sums of one query while they are merged, in the cells that product/parts/cells.wgsl uses at other times.
fn put_merged_sum(i: u32, sums: Queries) {
  cell_hi[i / 4u][i % 4u] = bitcast<u32>(sums);
}

fn merged_sum(i: u32) -> Queries {
  return bitcast<f32>(cell_hi[i / 4u][i % 4u]);
}
