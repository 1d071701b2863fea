// The outliers of each tile: the candidates with the most gain (quant/outliers.ts), of equal ones those of the first
// rows, and there of the first groups. The scales that their groups want take those of before.
//
// Bindings (G = groups with padding):
//   0 candidates   u32 [2, G, rows]: see probe_outliers.wgsl
//   1 picks        u32 [runs, rows]: see pick_refined.wgsl
//   2 prospects    f32 [3, G, rows]: see probe_groups.wgsl
//   3 group_codes  u32 [G, rows]: one more than an outlier's place in its group stays in bits 7 to 11, that of what is
//                  none goes; search_groups.wgsl and feedback_block.wgsl put the f16 that it lacks into bits 16 to 31
//
// Mapping: a workgroup a tile. The least gain that is picked is found bit by bit, by counting those that reach it.
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none
override wanted: u32 = 0; // outliers of a tile of 16 rows
override wanted_last: u32 = 0; // and of the last one, where it has fewer rows

const THREADS = 256u;

@group(0) @binding(0) var<storage, read> candidates: array<u32>;
@group(0) @binding(1) var<storage, read> picks: array<u32>;
@group(0) @binding(2) var<storage, read_write> prospects: array<f32>;
@group(0) @binding(3) var<storage, read_write> group_codes: array<u32>;

var<workgroup> reached: array<atomic<u32>, 33>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first = 16u * workgroup.x;
  let count = min(16u, rows - first);
  let limit = select(wanted_last, wanted, count == 16u);
  var least = 0u;
  for (var bit = 0u; bit < 32u; bit++) {
    let tried = least | (0x80000000u >> bit);
    count_reaching(tried, bit, first, count, thread);
    if (atomicLoad(&reached[bit]) >= limit) { least = tried; }
  }
  // Beyond `least` all are taken; of those that are equal to it as many as are still wanted.
  count_reaching(least + 1u, 32u, first, count, thread);
  let above = atomicLoad(&reached[32]);
  for (var i = thread; i < count * groups; i += THREADS) {
    let at = i / count * rows + first + i % count;
    if (candidates[at] > least) { keep(at); }
    if (candidates[at] < least) { drop_candidate(at); }
  }
  if (thread > 0u || least == 0u) { return; }
  var left = limit - above;
  for (var row = first; row < first + count; row++) {
    for (var group = 0u; group < groups; group++) {
      let at = group * rows + row;
      if (candidates[at] != least) { continue; }
      if (left > 0u) { keep(at); } else { drop_candidate(at); }
      left = max(left, 1u) - 1u;
    }
  }
}

// Counts the candidates of a tile that reach a gain.
fn count_reaching(gain: u32, place: u32, first: u32, count: u32, thread: u32) {
  var own = 0u;
  for (var i = thread; i < count * groups; i += THREADS) {
    own += select(0u, 1u, candidates[i / count * rows + first + i % count] >= gain);
  }
  atomicAdd(&reached[place], own);
  workgroupBarrier();
}

fn keep(at: u32) {
  let group = at / rows;
  var plane = 1u;
  if (refine_every != 0u) {
    let run = group / max(refine_every, 1u);
    plane = select(1u, 2u, run * refine_every + picks[run * rows + at % rows] == group);
  }
  prospects[plane * groups * rows + at] = bitcast<f32>(candidates[groups * rows + at]);
}

fn drop_candidate(at: u32) {
  group_codes[at] = 0u;
}
