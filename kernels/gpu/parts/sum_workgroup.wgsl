// Sum over the threads of a workgroup, a power of two; all of them get it.
override sum_threads: u32 = 256;

var<workgroup> partial_sums: array<f32, sum_threads>;

fn sum_workgroup(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  partial_sums[thread] = value;
  for (var distance = sum_threads / 2u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (thread < distance) { partial_sums[thread] += partial_sums[thread + distance]; }
  }
  workgroupBarrier();
  return partial_sums[0];
}
