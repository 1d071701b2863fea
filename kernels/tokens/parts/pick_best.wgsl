// The largest of many values with its index, over a workgroup; of equal values the one with the lowest index. A value
// that is not a number, or +infinity, wins over all, with index NOT_A_NUMBER, so that it can't pass unseen; -infinity
// never wins. From the kernel: `workgroup_size`.
const NOT_A_NUMBER = 0xffffffffu;
const NO_INDEX = 0xfffffffeu;

struct Best {
  value: f32,
  index: u32,
}

var<workgroup> best_values: array<f32, workgroup_size>;
var<workgroup> best_indices: array<u32, workgroup_size>;

// What any finite value is better than, the lowest by its index.
fn no_best() -> Best {
  return Best(-0x1.fffffep+127, NO_INDEX);
}

fn better(a: Best, b: Best) -> Best {
  let takes_b = b.index == NOT_A_NUMBER || b.value > a.value || (b.value == a.value && b.index < a.index);
  if (takes_b && a.index != NOT_A_NUMBER) { return b; }
  return a;
}

// By its bits: compilers may assume that all floats are finite.
fn candidate(value: f32, index: u32) -> Best {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) < 0x7f800000u) { return Best(value, index); }
  if (bits == 0xff800000u) { return no_best(); }
  return Best(0.0, NOT_A_NUMBER);
}

// The index, NOT_A_NUMBER where no value was finite.
fn index_of(best: Best) -> u32 {
  return select(best.index, NOT_A_NUMBER, best.index == NO_INDEX);
}

// The best of all threads; in every thread.
fn best_of_workgroup(own: Best, thread: u32) -> Best {
  workgroupBarrier();
  best_values[thread] = own.value;
  best_indices[thread] = own.index;
  workgroupBarrier();
  for (var distance = workgroup_size / 2u; distance > 0u; distance /= 2u) {
    if (thread < distance) {
      let other = Best(best_values[thread + distance], best_indices[thread + distance]);
      let best = better(Best(best_values[thread], best_indices[thread]), other);
      best_values[thread] = best.value;
      best_indices[thread] = best.index;
    }
    workgroupBarrier();
  }
  return Best(best_values[0], best_indices[0]);
}
