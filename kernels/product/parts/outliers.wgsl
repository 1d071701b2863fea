// needs: rows cells reduce
// The sparse term: sum of residual[o] x[channel[o]] over the outliers o of each row of a workgroup, in passes over its
// rows, each of which outlier_lanes lanes share. The words of a pass are asked for with those of a step and multiplied
// at the start of the next round, before that asks for anything: who waits for one load waits for all that were asked for
// before it, and so no pass waits for the weights of the step after. What the rounds have left is taken after them.

// Where the outliers of each row start and those of the row before end; loaded early, so that at the end only one
// memory latency is left. Gate and up rows are two runs of rows, with an entry more at the end of each.
var<workgroup> outlier_starts: array<u32, start_count>;

// An outlier as it lies in memory: the words that hold its channel and its residual, and which half of them is its own.
// `beyond` is the next one of its row that the lane takes, 0 for none.
struct Outlier {
  channels: u32,
  residuals: u32,
  half: u32,
  beyond: u32,
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
  return i + select(0u, 1u, i >= workgroup_outputs());
}

fn pass_rows() -> u32 {
  return workgroup_size / outlier_lanes;
}

// The passes from row `start` on, whose outliers are on their way.
fn sum_outliers(first: Outlier, start: u32, thread: u32) {
  var outlier = first;
  for (var row = start; row < workgroup_steps * STEP_ROWS; row += pass_rows()) {
    let next = first_outlier(row + pass_rows(), thread);
    sum_pass(outlier, row, thread);
    outlier = next;
  }
}

// One pass; outliers that a row has beyond its lanes are loaded here.
fn sum_pass(outlier: Outlier, first: u32, thread: u32) {
  let count = workgroup_steps * STEP_ROWS;
  let row = first + thread / outlier_lanes;
  var sum = outlier_term(outlier);
  if (outlier.beyond > 0u) {
    let end = outlier_starts[start_of(row) + 1u];
    for (var i = outlier.beyond; i < end; i += outlier_lanes) { sum += outlier_term(load_outlier(i, 0u)); }
  }
  sum = sum_strided(sum, thread, 1u, outlier_lanes);
  if (thread % outlier_lanes == 0u && row < count) { partial[columns * count + row] = sum; }
}

// A lane's first outlier of its row in a pass, one of residual 0 where there is none.
fn first_outlier(first: u32, thread: u32) -> Outlier {
  let row = first + thread / outlier_lanes;
  if (row < workgroup_steps * STEP_ROWS) {
    let i = outlier_starts[start_of(row)] + thread % outlier_lanes;
    let end = outlier_starts[start_of(row) + 1u];
    let beyond = i + outlier_lanes;
    if (i < end) { return load_outlier(i, select(0u, beyond, beyond < end)); }
  }
  return Outlier();
}

fn load_outlier(i: u32, beyond: u32) -> Outlier {
  let at = outlier_start + i / 2u;
  return Outlier(outlier_planes[at + rows + 1u], outlier_planes[at + outlier_residuals], i % 2u, beyond);
}

fn outlier_term(outlier: Outlier) -> f32 {
  let shift = 16u * outlier.half;
  return unpack2x16float(outlier.residuals >> shift).x * activation((outlier.channels >> shift) & 0xffffu);
}
