// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup.

// Where the outliers of each row start and those of the row before end; loaded early, so that at the end only one
// memory latency is left. Gate and up rows are two runs of rows, with an entry more at the end of each.
var<workgroup> outlier_starts: array<u32, workgroup_steps * STEP_ROWS + 2>;

struct Outlier {
  channel: u32,
  residual: f32,
}

fn load_outlier_starts(first_row: u32, thread: u32) {
  let run = workgroup_outputs() + 1u;
  let half = rows / rows_per_output();
  for (var i = thread; i < run * rows_per_output(); i += workgroup_size) {
    outlier_starts[i] = outlier_planes[i / run * half + min(first_row + i % run, half)];
  }
}

// Entry of row i of the workgroup.
fn start_of(i: u32) -> u32 {
  return i + i / workgroup_outputs();
}

// outlier_lanes lanes share a row; the first outliers of the next rows are fetched while these are summed.
fn sum_outliers(thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let pass_rows = workgroup_size / outlier_lanes;
  let own = thread % outlier_lanes;
  var next = first_outlier(thread / outlier_lanes, own);
  for (var first = 0u; first < count; first += pass_rows) {
    let row = first + thread / outlier_lanes;
    let now = next;
    next = first_outlier(row + pass_rows, own);
    var sum = now.residual * activation(now.channel);
    if (row < count) {
      let end = outlier_starts[start_of(row) + 1u];
      for (var i = outlier_starts[start_of(row)] + own + outlier_lanes; i < end; i += outlier_lanes) {
        let outlier = load_outlier(i);
        sum += outlier.residual * activation(outlier.channel);
      }
    }
    sum = sum_strided(sum, thread, 1u, outlier_lanes);
    if (own == 0u && row < count) { partial[columns * count + row] = sum; }
  }
}

fn first_outlier(row: u32, own: u32) -> Outlier {
  let start = start_of(row);
  if (row < workgroup_steps * STEP_ROWS && outlier_starts[start] + own < outlier_starts[start + 1u]) {
    return load_outlier(outlier_starts[start] + own);
  }
  return Outlier(first_column * team * 64u, 0.0);
}

fn load_outlier(i: u32) -> Outlier {
  let shift = 16u * (i % 2u);
  let channel = (outlier_planes[rows + 1u + i / 2u] >> shift) & 0xffffu;
  return Outlier(channel, unpack2x16float(outlier_planes[outlier_residuals + i / 2u] >> shift).x);
}
