// needs: halves matrices
// Factors and sums of products in workgroup memory, for subgroups that multiply matrices.
//
// Activations are divided by a unit (ACTIVATION_UNIT of matrix/elementwise.ts), which is undone at the end.
//
// From the tile: ROW_BLOCKS and TOKEN_BLOCKS, the blocks of its rows and tokens, and
//   weight_tile, token_tile  [32 channels of a step][16 rows or tokens]: blocks
override activation_unit: f32;

// A turn is 8 consecutive channels of the step.
fn put_row(tile_row: u32, turn: u32, words: vec4<u32>) {
  weight_tile[turn / 4u * ROW_BLOCKS + tile_row / 16u][place_in_block(tile_row, turn)] = words;
}

fn put_token(tile_token: u32, turn: u32, words: vec4<u32>) {
  token_tile[turn / 4u * TOKEN_BLOCKS + tile_token / 16u][place_in_block(tile_token, turn)] = words;
}

fn in_units(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
  return halves_of(low / activation_unit, high / activation_unit);
}

// The first or last 16 channels of a block.
fn weight_matrix(block: u32, is_last: bool) -> Right {
  if (is_last) { return subgroupMatrixLoad<Right, col_major>(&weight_tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Right, col_major>(&weight_tile[block], 0u, STRIDE);
}

fn token_matrix(block: u32, is_last: bool) -> Left {
  if (is_last) { return subgroupMatrixLoad<Left, row_major>(&token_tile[block], 2u, STRIDE); }
  return subgroupMatrixLoad<Left, row_major>(&token_tile[block], 0u, STRIDE);
}

// Puts a matrix of sums into a block of the weights' memory, on its way out: [token][row / 4].
fn put_sums(block: u32, sums: Sum) {
  subgroupMatrixStore<row_major>(&weight_tile[block], 0u, sums, 4u);
}

// Sums of four rows for a token, of the 64 such in a matrix.
fn sums_at(block: u32, quad: u32) -> vec4<f32> {
  return activation_unit * bitcast<vec4<f32>>(weight_tile[block][quad]);
}
