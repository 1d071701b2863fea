// needs: half_bits
// Which group of each run is refined, and the second-order scales that follow (quant/refine_pick.ts, quant/twobit.ts).
//
//   pick = the group of the run whose error, times its weight, falls most, unless picks are given
//   d[tile, g] = f16(largest wanted scale of its 16 rows / 15)
//
// Bindings (G = groups with padding, a multiple of 4; S of them in whole blocks):
//   0 prospects   f32 [3, G, rows], see probe_groups.wgsl
//   1 picks       u32 [runs, rows]: the refined group of each run, counted from the run's start
//   2 tile_scale  u32 [tiles, S / 2]: d of two groups, f16 each; infinity where d is beyond f16
//   3 group_weights  f32 [G]: how much each group counts
//
// Mapping: a thread 16 rows x 16 groups, which hold whole runs of any length; workgroup.y says which groups.
override rows: u32 = 1;
override groups: u32 = 8;
override refine_every: u32 = 8; // 0 for none
override has_picks: u32 = 0; // 1 where `picks` are given

@group(0) @binding(0) var<storage, read> prospects: array<f32>;
@group(0) @binding(1) var<storage, read_write> picks: array<u32>;
@group(0) @binding(2) var<storage, read_write> tile_scale: array<u32>;
@group(0) @binding(3) var<storage, read> group_weights: array<f32>;

const NO_PICK = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let tile = id.x;
  let first = 16u * id.y;
  if (16u * tile >= rows) { return; }
  let last = min(first + 16u, groups);
  let run_groups = select(refine_every, 16u, refine_every == 0u);
  var largest: array<f32, 16>;
  for (var row = 16u * tile; row < min(16u * tile + 16u, rows); row++) {
    for (var start = first; start < last; start += run_groups) {
      let end = min(start + run_groups, last);
      var pick = NO_PICK;
      if (refine_every != 0u) {
        let at = start / run_groups * rows + row;
        if (has_picks == 0u) { picks[at] = pick_group(row, start, end) - start; }
        pick = start + picks[at];
      }
      for (var group = start; group < end; group++) {
        let plane = select(1u, 2u, group == pick);
        largest[group - first] = max(largest[group - first], prospects[(plane * groups + group) * rows + row]);
      }
    }
  }
  for (var group = first; group < last; group += 2u) {
    let pair = half_bits(largest[group - first] / 15.0) | (half_bits(largest[group - first + 1u] / 15.0) << 16u);
    tile_scale[(tile * ((groups + 7u) / 8u * 8u) + group) / 2u] = pair;
  }
}

fn pick_group(row: u32, start: u32, end: u32) -> u32 {
  var best = start;
  for (var group = start + 1u; group < end; group++) {
    if (weighted_gain(group, row) > weighted_gain(best, row)) { best = group; }
  }
  return best;
}

fn weighted_gain(group: u32, row: u32) -> f32 {
  return prospects[group * rows + row] * group_weights[group];
}
