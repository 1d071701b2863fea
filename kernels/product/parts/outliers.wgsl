// needs: rows cells reduce
// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup, in passes over its
// rows. They are taken after the rows' steps, two of them on their way, or, with `outliers_by_round`, one in each round
// of steps, asked for a round earlier: then other teams' steps hide their latency, and no team waits for them in the end.
override outliers_by_round: u32 = 0;

// Where the outliers of each row start and those of the row before end; loaded early, so that at the end only one
// memory latency is left. Gate and up rows are two runs of rows, with an entry more at the end of each.
var<workgroup> outlier_starts: array<u32, start_count>;

// An outlier as it lies in memory: the words that hold its channel and its residual, and which half of them is its own.
struct Outlier {
  channels: u32,
  residuals: u32,
  half: u32,
}

// Of a pass and of the next one.
struct Outliers {
  now: Outlier,
  next: Outlier,
}

fn load_outlier_starts(first_row: u32, thread: u32) {
  let run = workgroup_outputs() + 1u;
  let half = rows / rows_per_output();
  for (var i = thread; i < run * rows_per_output(); i += workgroup_size) {
    outlier_starts[i] = outlier_planes[outlier_start + i / run * half + min(first_row + i % run, half)];
  }
}

// Entry of row i of the workgroup.
fn start_of(i: u32) -> u32 {
  return i + i / workgroup_outputs();
}

fn pass_rows() -> u32 {
  return workgroup_size / outlier_lanes;
}

// outlier_lanes lanes share a row. The first passes are asked for before the rows are multiplied.
fn first_outliers(thread: u32) -> Outliers {
  var outliers: Outliers;
  outliers.now = first_outlier(0u, thread);
  if (outliers_by_round == 0u) { outliers.next = first_outlier(pass_rows(), thread); }
  return outliers;
}

// The passes from row `start` on, of which these two are on their way.
fn sum_outliers(first_two: Outliers, start: u32, thread: u32) {
  var outliers = first_two;
  for (var first = start; first < workgroup_steps * STEP_ROWS; first += pass_rows()) {
    let after = first_outlier(first + 2u * pass_rows(), thread);
    sum_pass(outliers.now, first, thread);
    outliers = Outliers(outliers.next, after);
  }
}

// What the rounds of steps have left, from row `start` on; as a rule nothing.
fn sum_last_outliers(outliers: Outliers, start: u32, thread: u32) {
  let rounds = (workgroup_steps + row_teams - 1u) / row_teams;
  if (outliers_by_round == 0u) { sum_outliers(outliers, start, thread); }
  if (outliers_by_round != 0u && rounds * pass_rows() < workgroup_steps * STEP_ROWS) {
    sum_outliers(Outliers(outliers.now, first_outlier(start + pass_rows(), thread)), start, thread);
  }
}

// One pass; outliers that a row has beyond its lanes are loaded here.
fn sum_pass(outlier: Outlier, first: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let row = first + thread / outlier_lanes;
  let own = thread % outlier_lanes;
  var sum = outlier_term(outlier);
  if (row < count) {
    let end = outlier_starts[start_of(row) + 1u];
    for (var i = outlier_starts[start_of(row)] + own + outlier_lanes; i < end; i += outlier_lanes) {
      sum += outlier_term(load_outlier(i));
    }
  }
  sum = sum_strided(sum, thread, 1u, outlier_lanes);
  if (own == 0u && row < count) { partial[columns * count + row] = sum; }
}

// A lane's first outlier of its row in a pass, one of residual 0 where there is none.
fn first_outlier(first: u32, thread: u32) -> Outlier {
  let row = first + thread / outlier_lanes;
  if (row < workgroup_steps * STEP_ROWS) {
    let i = outlier_starts[start_of(row)] + thread % outlier_lanes;
    if (i < outlier_starts[start_of(row) + 1u]) { return load_outlier(i); }
  }
  return Outlier();
}

fn load_outlier(i: u32) -> Outlier {
  return Outlier(outlier_planes[outlier_start + rows + 1u + i / 2u], outlier_planes[outlier_start + outlier_residuals + i / 2u], i % 2u);
}

fn outlier_term(outlier: Outlier) -> f32 {
  let shift = 16u * outlier.half;
  return unpack2x16float(outlier.residuals >> shift).x * activation((outlier.channels >> shift) & 0xffffu);
}
