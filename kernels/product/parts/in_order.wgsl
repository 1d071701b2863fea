// needs: steps
// The rows of a workgroup with nothing asked for ahead: the words of a step at its start, outliers after all steps. This
// is what asynchrony is measured against (experiment async). Layout, arithmetic and sums are those of steps.wgsl, and
// no barrier stands between loading and multiplying, so while a team waits for its words others multiply as well.

fn multiply_rows_in_order(first_row: u32, lane: Lane) {
  let row_team = row_team_of(lane.thread);
  let x = take_activations(lane);
  for (var start = 0u; start < workgroup_steps; start += row_teams) {
    let step = start + row_team;
    let row = matrix_row(first_row, step * STEP_ROWS);
    var now: Step;
    if (row < rows) { now = load_step(row, lane); }
    store_sums(sum_rows(now, row, x, lane), true, step, lane);
  }
  if (has_outliers()) { sum_outliers(first_outlier(0u, lane.thread), 0u, lane.thread); }
}
