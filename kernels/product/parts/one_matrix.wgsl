// needs: outputs
// One matrix: its planes have their bindings for themselves, its sums go to y.
const base_start = 0u; // first vector of each plane
const refine_start = 0u;
const meta_start = 0u;
const scale_start = 0u;
const outlier_start = 0u; // first word

fn has_outliers() -> bool {
  return outlier_residuals != 0u;
}

fn write_row(token: u32, row: u32, sum: f32) {
  let at = token * token_rows + y_row + row;
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}
