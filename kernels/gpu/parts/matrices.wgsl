// Matrices that subgroups multiply: factors f16, sums f32.
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

// What they are loaded from, in workgroup memory: blocks of 16 rows x 32 columns, each an array of its own. So a matrix
// lies at a constant place in its array, which Dawn's compiler sees to be within bounds; elsewhere it puts the load into
// a branch, through a variable, which can cost as much as all else. Offsets and strides count vectors of eight f16, of
// which a row has one more than it needs: for other memory banks.
const STRIDE = 5u;
alias Block = array<vec4<u32>, 80>;

fn place_in_block(row: u32, vector: u32) -> u32 {
  return row % 16u * STRIDE + vector % 4u;
}
