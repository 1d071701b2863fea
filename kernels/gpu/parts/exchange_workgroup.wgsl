// is: exchange
// Exchange between lanes through workgroup memory, for devices without subgroups or with several subgroup sizes.
var<workgroup> exchanged: array<f32, workgroup_size>;

fn exchange(value: f32, thread: u32, distance: u32) -> f32 {
  workgroupBarrier();
  exchanged[thread] = value;
  workgroupBarrier();
  return exchanged[thread ^ distance];
}
