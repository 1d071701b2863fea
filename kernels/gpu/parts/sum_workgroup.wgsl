// Sum over the 256 threads of a workgroup; all of them get it.
var<workgroup> partial_sums: array<f32, 256>;

fn sum_workgroup(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  partial_sums[thread] = value;
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (thread < distance) { partial_sums[thread] += partial_sums[thread + distance]; }
  }
  workgroupBarrier();
  return partial_sums[0];
}
