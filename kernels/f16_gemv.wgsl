// y[r] = sum over c of w[r, c] x[c], all weights f16: the baseline.
override rows: u32 = 16;
override chunks: u32 = 16;
override lanes: u32 = 64;
override workgroup_size: u32 = 64;
override rows_a_lane: u32 = 4;

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<f32, (workgroup_size + 1) * rows_a_lane>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row_groups = workgroup_size / lanes;
  let first_row = (workgroup.x * row_groups + thread / lanes) * rows_a_lane;
  let lane = thread % lanes;
  let start0 = min(first_row, rows - 1u) * chunks;
  let start1 = min(first_row + 1u, rows - 1u) * chunks;
  let start2 = min(first_row + 2u, rows - 1u) * chunks;
  let start3 = min(first_row + 3u, rows - 1u) * chunks;
  var sum = vec4<f32>(0.0);
  var chunk = lane;
  var next0 = weights[start0 + min(chunk, chunks - 1u)];
  var next1 = weights[start1 + min(chunk, chunks - 1u)];
  var next2 = vec4<u32>(0u);
  var next3 = vec4<u32>(0u);
  if (rows_a_lane > 2u) {
    next2 = weights[start2 + min(chunk, chunks - 1u)];
    next3 = weights[start3 + min(chunk, chunks - 1u)];
  }
  while (chunk < chunks) {
    let w0 = next0;
    let w1 = next1;
    let w2 = next2;
    let w3 = next3;
    let packed_x = x[chunk];
    chunk += lanes;
    if (chunk < chunks) {
      next0 = weights[start0 + chunk];
      next1 = weights[start1 + chunk];
      if (rows_a_lane > 2u) {
        next2 = weights[start2 + chunk];
        next3 = weights[start3 + chunk];
      }
    }
    let x_low = vec4(unpack2x16float(packed_x.x), unpack2x16float(packed_x.y));
    let x_high = vec4(unpack2x16float(packed_x.z), unpack2x16float(packed_x.w));
    sum.x += dot_chunk(w0, x_low, x_high);
    sum.y += dot_chunk(w1, x_low, x_high);
    if (rows_a_lane > 2u) {
      sum.z += dot_chunk(w2, x_low, x_high);
      sum.w += dot_chunk(w3, x_low, x_high);
    }
  }
  for (var i = 0u; i < rows_a_lane; i++) { partial[i * (workgroup_size + 1u) + thread] = sum[i]; }
  workgroupBarrier();
  reduce(workgroup.x, thread);
}

fn dot_chunk(w: vec4<u32>, x_low: vec4<f32>, x_high: vec4<f32>) -> f32 {
  let low = vec4(unpack2x16float(w.x), unpack2x16float(w.y));
  let high = vec4(unpack2x16float(w.z), unpack2x16float(w.w));
  return dot(low, x_low) + dot(high, x_high);
}

fn reduce(workgroup: u32, thread: u32) {
  let row_groups = workgroup_size / lanes;
  for (var i = thread; i < row_groups * rows_a_lane; i += workgroup_size) {
    let start = (i % rows_a_lane) * (workgroup_size + 1u) + (i / rows_a_lane) * lanes;
    var sum = 0.0;
    for (var lane = 0u; lane < lanes; lane++) { sum += partial[start + lane]; }
    let row = workgroup * row_groups * rows_a_lane + i;
    if (row < rows) { y[row] = sum; }
  }
}
