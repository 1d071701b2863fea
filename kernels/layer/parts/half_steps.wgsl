// needs: rows cells halves
// is: layer_steps
// Rows of f16 weights times the activations in a workgroup's cells, step by step: for decode_layer.wgsl what steps.wgsl
// is for packed weights. `base` is vec4<u32> [rows, channels / 8], 8 f16 each.
//
// A column is as wide as for packed weights. A team takes it in stretches of two chunks of 8 channels a lane, of all
// four rows of a step; neighbouring lanes take neighbouring chunks. A lane has two stretches on their way, 16 loads and
// 256 bytes.

// What a lane loads of a stretch: two chunks of four rows.
struct Stretch {
  near0: vec4<u32>,
  near1: vec4<u32>,
  near2: vec4<u32>,
  near3: vec4<u32>,
  far0: vec4<u32>,
  far1: vec4<u32>,
  far2: vec4<u32>,
  far3: vec4<u32>,
}

// Two stretches, an even one and the odd one after it.
struct Step {
  even: Stretch,
  odd: Stretch,
}

// Multiplies all rows of a workgroup, given the first two stretches, once the cells are filled; the sums are then in
// `partial`. Each stretch is asked for as soon as the one two before it is multiplied, into the same registers: moving
// words from one variable to another would wait for them.
fn multiply_rows(first: Step, first_row: u32, lane: Lane) {
  let row_team = row_team_of(lane.thread);
  // Of a column, an even number; the same for all columns, so that no lane decides how long the loop is.
  let stretches = select(4u, 2u, channels <= 32u * team);
  var now = first;
  for (var start = 0u; start < workgroup_steps; start += row_teams) {
    let step = start + row_team;
    let row = matrix_row(first_row, step * STEP_ROWS);
    let next_row = matrix_row(first_row, (step + row_teams) * STEP_ROWS);
    var sums = vec4(0.0);
    for (var stretch = 0u; stretch < stretches; stretch += 2u) {
      let ahead = (stretch + 2u) % stretches;
      let row_ahead = select(row, next_row, ahead == 0u);
      sums += multiply_stretch(now.even, stretch, lane);
      if (row_ahead < rows) { now.even = load_stretch(row_ahead, ahead, lane); }
      sums += multiply_stretch(now.odd, stretch + 1u, lane);
      if (row_ahead < rows) { now.odd = load_stretch(row_ahead, ahead + 1u, lane); }
    }
    let sum = sum_step(sums, vec2(0.0), lane);
    if (lane.lane < STEP_ROWS && step < workgroup_steps) {
      partial[(lane.column * workgroup_steps + step) * STEP_ROWS + summed_row(lane.lane)] = sum;
    }
  }
}

fn load_step(row: u32, lane: Lane) -> Step {
  return Step(load_stretch(row, 0u, lane), load_stretch(row, 1u, lane));
}

// Past the end of a row a chunk is the last again; its activations are zeros.
fn load_stretch(row: u32, stretch: u32, lane: Lane) -> Stretch {
  let chunks = channels / 8u;
  let chunk = 8u * (lane.half_block - lane.lane) + stretch_chunk(stretch, lane);
  let near = base_start + row * chunks + min(chunk, chunks - 1u);
  let far = base_start + row * chunks + min(chunk + team, chunks - 1u);
  return Stretch(
    base[near],
    base[near + chunks],
    base[near + 2u * chunks],
    base[near + 3u * chunks],
    base[far],
    base[far + chunks],
    base[far + 2u * chunks],
    base[far + 3u * chunks],
  );
}

// A lane's first chunk of a stretch, in its column.
fn stretch_chunk(stretch: u32, lane: Lane) -> u32 {
  return 2u * team * stretch + lane.lane;
}

fn multiply_stretch(now: Stretch, stretch: u32, lane: Lane) -> vec4<f32> {
  let chunk = 8u * team * lane.column + stretch_chunk(stretch, lane);
  let near = chunk_activations(chunk);
  let far = chunk_activations(chunk + team);
  return vec4(
    dot_halves(now.near0, near.low, near.high) + dot_halves(now.far0, far.low, far.high),
    dot_halves(now.near1, near.low, near.high) + dot_halves(now.far1, far.low, far.high),
    dot_halves(now.near2, near.low, near.high) + dot_halves(now.far2, far.low, far.high),
    dot_halves(now.near3, near.low, near.high) + dot_halves(now.far3, far.low, far.high),
  );
}

struct ChunkValues {
  low: vec4<f32>,
  high: vec4<f32>,
}

// Activations of a chunk, half of a group, counted from the first of the columns at hand.
fn chunk_activations(chunk: u32) -> ChunkValues {
  let cell = cell_of(chunk / 2u);
  let shift = vec4(16u * (chunk % 2u));
  let hi = cell_hi[cell] >> shift;
  let lo = cell_lo[cell] >> shift;
  let unit = vec4(1.0, 4.0, 1.0, 4.0) * (cell_sum[cell].x / 512.0);
  return ChunkValues(
    unit * vec4<f32>(255 * signed_byte(hi << vec4(24u)) + signed_byte(lo << vec4(24u))),
    unit * vec4<f32>(255 * signed_byte(hi << vec4(16u)) + signed_byte(lo << vec4(16u))),
  );
}

// The highest byte of each word.
fn signed_byte(words: vec4<u32>) -> vec4<i32> {
  return bitcast<vec4<i32>>(words) >> vec4(24u);
}
