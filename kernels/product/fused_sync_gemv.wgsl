// needs: one_matrix rows refine cells outliers fill
// Fused, synchronous matrix-vector product: what fused_gemv.wgsl computes, in the order of a kernel without overlap.
//
//   load the words of a step | barrier | decode second-order scales | barrier | decode codes and multiply | barrier
//
// Words and scales pass through workgroup memory, as in kernels that stage weights there; the barriers keep every team
// of a workgroup in the same stage, so no load is in flight while anything is decoded or multiplied.
//
// Bindings, mapping and constants as in fused_gemv.wgsl.
// [row of the step][thread]
var<workgroup> staged_base: array<vec4<u32>, 4 * workgroup_size>;
var<workgroup> staged_meta: array<u32, 4 * workgroup_size>;
var<workgroup> staged_scale: array<vec4<f32>, 4 * workgroup_size>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = locate(thread, workgroup);
  let row_team = thread / (team * columns);
  let first_row = workgroup.x * workgroup_outputs();
  if (outlier_residuals != 0u) { load_outlier_starts(first_row, thread); }
  fill_cells(begin_fill(lane.token, thread), lane.token, thread);
  workgroupBarrier();
  let x = take_activations(lane);
  for (var first = 0u; first < workgroup_steps; first += row_teams) {
    let step = first + row_team;
    let row = matrix_row(first_row, step * STEP_ROWS);
    load_words(row, lane);
    workgroupBarrier();
    decode_scales(x, row, lane);
    workgroupBarrier();
    let sum = sum_step(multiply_step(x, lane), refine_step(row, lane), lane);
    if (lane.lane < STEP_ROWS && step < workgroup_steps) {
      partial[(lane.column * workgroup_steps + step) * STEP_ROWS + summed_row(lane.lane)] = sum;
    }
    workgroupBarrier();
  }
  if (outlier_residuals != 0u) { sum_outliers(first_outliers(thread), thread); }
  finish_input(thread);
  workgroupBarrier();
  write_rows(first_row, thread, lane.token);
}

fn load_words(row: u32, lane: Lane) {
  for (var i = 0u; i < STEP_ROWS; i++) {
    let at = (row + i) * half_blocks + lane.half_block;
    staged_base[i * workgroup_size + lane.thread] = base[at];
    staged_meta[i * workgroup_size + lane.thread] = meta_words[row / STEP_ROWS * half_blocks + lane.half_block][i];
  }
}

fn decode_scales(x: Activations, row: u32, lane: Lane) {
  let all_scales = block_scales(row, lane);
  let scales = select(all_scales.xy, all_scales.zw, lane.half_block % 2u == 1u);
  let d = vec4(unpack2x16float(scales.x), unpack2x16float(scales.y));
  let scale512 = x.step512 * d;
  for (var i = 0u; i < STEP_ROWS; i++) {
    let at = i * workgroup_size + lane.thread;
    let m = staged_meta[at];
    staged_scale[at] = vec4(
      scale_of(m << 14u, lane.masks, scale512.x),
      scale_of(m << 7u, lane.masks, scale512.y),
      scale_of(m, lane.masks, scale512.z),
      scale_of(m >> 7u, lane.masks, scale512.w),
    );
  }
}

fn multiply_step(x: Activations, lane: Lane) -> vec4<f32> {
  return vec4(
    multiply_row(x, lane.thread, lane.masks),
    multiply_row(x, lane.thread + workgroup_size, lane.masks),
    multiply_row(x, lane.thread + 2u * workgroup_size, lane.masks),
    multiply_row(x, lane.thread + 3u * workgroup_size, lane.masks),
  );
}

fn multiply_row(x: Activations, at: u32, masks: CodeMasks) -> f32 {
  let words = staged_base[at];
  let m = staged_meta[at];
  let centred = vec4(
    fma(-zero_plus(m << 14u, masks), x.sum.x, dot_codes(words.x, x.hi0, x.lo0) + x.bias.x),
    fma(-zero_plus(m << 7u, masks), x.sum.y, dot_codes(words.y, x.hi1, x.lo1) + x.bias.y),
    fma(-zero_plus(m, masks), x.sum.z, dot_codes(words.z, x.hi2, x.lo2) + x.bias.z),
    fma(-zero_plus(m >> 7u, masks), x.sum.w, dot_codes(words.w, x.hi3, x.lo3) + x.bias.w),
  );
  return dot(staged_scale[at], centred);
}

fn refine_step(row: u32, lane: Lane) -> vec2<f32> {
  if (refine_every == 0u) { return vec2(0.0); }
  return refine_words(row, max(refine_every, 1u), lane);
}
