// needs: outputs
// One matrix: its planes have their bindings for themselves, its sums go to y. Sizes and bindings of fused_gemv.wgsl,
// where they are explained.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
override y_row: u32 = 0; // of row 0, where a matrix is one of several that make y
override half_blocks: u32 = 2;
override ends_in_half: u32 = half_blocks % 2u; // 1 where a row may end in half a block
override refine_every: u32 = 8; // 0 for none
override team: u32 = 32;
override columns: u32 = 2;
override first_column: u32 = 0; // of this dispatch; rows too long for workgroup memory take several
override row_teams: u32 = 1;
override workgroup_steps: u32 = 4;
override workgroup_size: u32 = 64; // team * columns * row_teams
override cell_count: u32 = 256; // columns * team * 4
override partial_count: u32 = 32; // (columns + 1) * workgroup_steps * 4
override slot_start: u32 = 0; // first vector of the outliers' slots, 0 where there are no outliers
override slot_bits: u32 = 0; // a row has 2^slot_bits slots, from 4 to 4 team
override outlier_residuals: u32 = 0; // first word of the residuals, 0 where no row has outliers beyond its slots
override output_kind: u32 = 0; // see product/parts/outputs.wgsl

@group(0) @binding(0) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> refine: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> meta_words: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tile_scale: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

const base_start = 0u; // first vector of each plane
const refine_start = 0u;
const meta_start = 0u;
const scale_start = 0u;
const outlier_start = 0u; // first word

fn has_outliers() -> bool {
  return slot_start != 0u;
}

// All teams walk along.
fn leading_team(row_team: u32) -> u32 {
  return 0u;
}

fn output_row(first_row: u32, i: u32) -> u32 {
  return first_row + i;
}

fn write_rows(first_row: u32, thread: u32, token: u32) {
  let outputs = workgroup_outputs();
  for (var i = thread; i < outputs; i += workgroup_size) {
    let row = first_row + i;
    var sum = row_sum(i);
    if (output_kind == SILU_PRODUCT) { sum = silu_product(sum, row_sum(i + outputs)); }
    if (row < rows / rows_per_output()) { write_row(token, row, sum); }
  }
}

fn write_row(token: u32, row: u32, sum: f32) {
  let at = token * token_rows + y_row + row;
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}
