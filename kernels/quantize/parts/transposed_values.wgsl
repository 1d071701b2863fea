// needs: group_grid
// Weights of the group at a position, for one row. From the kernel: `transposed`, `rows`.
fn load_values(position: u32, row: u32) -> Values {
  let at = 16u * position * rows + row;
  return Values(
    load_four(at),
    load_four(at + 4u * rows),
    load_four(at + 8u * rows),
    load_four(at + 12u * rows),
  );
}

fn load_four(at: u32) -> vec4<f32> {
  return vec4(transposed[at], transposed[at + rows], transposed[at + 2u * rows], transposed[at + 3u * rows]);
}
