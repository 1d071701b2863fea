// needs: rows cells reduce
// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup.

// Where the outliers of each row start and those of the row before end; loaded early, so that at the end only one
// memory latency is left. Gate and up rows are two runs of rows, with an entry more at the end of each.
var<workgroup> outlier_starts: array<u32, start_count>;

// An outlier as it lies in memory: the words that hold its channel and its residual, and which half of them is its own.
struct Outlier {
  channels: u32,
  residuals: u32,
  half: u32,
}

// Of the first and the second pass over a workgroup's rows.
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

// outlier_lanes lanes share a row. Two passes are in flight; the first two are asked for before the rows are
// multiplied.
fn first_outliers(thread: u32) -> Outliers {
  let row = thread / outlier_lanes;
  return Outliers(first_outlier(row, thread), first_outlier(row + pass_rows(), thread));
}

fn sum_outliers(first_two: Outliers, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let own = thread % outlier_lanes;
  var outliers = first_two;
  for (var first = 0u; first < count; first += pass_rows()) {
    let row = first + thread / outlier_lanes;
    let after = first_outlier(row + 2u * pass_rows(), thread);
    var sum = outlier_term(outliers.now);
    if (row < count) {
      let end = outlier_starts[start_of(row) + 1u];
      for (var i = outlier_starts[start_of(row)] + own + outlier_lanes; i < end; i += outlier_lanes) {
        sum += outlier_term(load_outlier(i));
      }
    }
    sum = sum_strided(sum, thread, 1u, outlier_lanes);
    if (own == 0u && row < count) { partial[columns * count + row] = sum; }
    outliers = Outliers(outliers.next, after);
  }
}

// A lane's first outlier of a row, one of residual 0 where there is none.
fn first_outlier(row: u32, thread: u32) -> Outlier {
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
