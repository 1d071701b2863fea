// needs: group_grid rounding half_bits
// Where a group lies in the planes, searching its codes and writing them there, its outlier too. From the kernel: `rows`, `groups`,
// `refine_every`, `picks`, `tile_scale`, `base`, `refine`, `group_codes`.

// A group of one row.
struct GroupPlace {
  row: u32,
  group: u32,
  is_refined: bool,
  d: f32,
}

fn place_group(group: u32, row: u32) -> GroupPlace {
  var is_refined = false;
  if (refine_every != 0u) {
    let run = group / max(refine_every, 1u);
    is_refined = run * refine_every + picks[run * rows + row] == group;
  }
  // See pick_outliers.wgsl; no bit for none.
  if (has_outliers != 0u) { outlier_mask = (1u << ((group_codes[group * rows + row] >> 7u) & 31u)) >> 1u; }
  let scales = unpack2x16float(tile_scale[(row / 16u * ((groups + 7u) / 8u * 8u) + group) / 2u]);
  return GroupPlace(row, group, is_refined, select(scales.x, scales.y, group % 2u == 1u));
}

// Of all scale and zero codes those that leave the least error, among equal ones the lowest scale code.
fn search(weights: Values, place: GroupPlace) -> Choice {
  var best = search_zeros(weights, place, 0u);
  if (place.d == 0.0) { return best; }
  for (var scale_code = 1u; scale_code < SCALE_CODES; scale_code++) {
    best = better(best, search_zeros(weights, place, scale_code));
  }
  return best;
}

// The first one, unless the other's error is less.
fn better(first: Choice, other: Choice) -> Choice {
  if (other.error < first.error) { return other; }
  return first;
}

// The zero code that suits a scale code best; 0 rounds everything to 0, whichever it is.
fn search_zeros(weights: Values, place: GroupPlace, scale_code: u32) -> Choice {
  let scale = f32(scale_code) * place.d;
  var best = Choice(rounding_error(weights, make_grid(scale, 0u, place.is_refined)), scale_code, 0u);
  if (scale_code == 0u) { return best; }
  for (var zero_code = 1u; zero_code < ZERO_CODES; zero_code++) {
    let error = rounding_error(weights, make_grid(scale, zero_code, place.is_refined));
    best = better(best, Choice(error, scale_code, zero_code));
  }
  return best;
}

// Writes a choice, the codes nearest to what is rounded, and what an outlier lacks, which is returned.
fn write_group(place: GroupPlace, choice: Choice, wanted: Values, grid: Grid) -> f32 {
  let codes = array<vec4<u32>, 4>(
    vec4<u32>(nearest_codes(wanted[0], grid)),
    vec4<u32>(nearest_codes(wanted[1], grid)),
    vec4<u32>(nearest_codes(wanted[2], grid)),
    vec4<u32>(nearest_codes(wanted[3], grid)),
  );
  let shift = select(0u, 2u, place.is_refined);
  base[place.row * groups + place.group] = join_group(codes, shift);
  if (place.is_refined) {
    let runs = (groups + refine_every - 1u) / max(refine_every, 1u);
    let word = place.row / 4u * runs + place.group / max(refine_every, 1u);
    refine[word * 4u + place.row % 4u] = join_group(codes, 0u);
  }
  let at = place.group * rows + place.row;
  let word = choice.scale_code | (choice.zero_code << 4u);
  if (has_outliers == 0u) {
    group_codes[at] = word;
    return 0.0;
  }
  let residual = residual_bits(wanted, grid);
  group_codes[at] = word | (group_codes[at] & 0xf80u) | (residual << 16u);
  return unpack2x16float(residual).x;
}

// Bits of the f16 that is added to an outlier's code; 0 for none.
fn residual_bits(wanted: Values, grid: Grid) -> u32 {
  let rest = lacking(0u, wanted[0], grid) + lacking(1u, wanted[1], grid) + lacking(2u, wanted[2], grid) +
    lacking(3u, wanted[3], grid);
  // All but one are zero.
  let value = (rest.x + rest.y) + (rest.z + rest.w);
  return half_bits(abs(value)) | select(0u, 0x8000u, value < 0.0);
}

fn lacking(four: u32, wanted: vec4<f32>, grid: Grid) -> vec4<f32> {
  return select(vec4(0.0), wanted - nearest_values(wanted, grid), are_outliers(four));
}

// What weights decode to, their outlier included.
fn stored_values(four: u32, wanted: vec4<f32>, grid: Grid, residual: f32) -> vec4<f32> {
  return nearest_values(wanted, grid) + select(vec4(0.0), vec4(residual), are_outliers(four));
}

// Bits `shift` and `shift` + 1 of 16 codes.
fn join_group(codes: array<vec4<u32>, 4>, shift: u32) -> u32 {
  return join_bits((codes[0] >> vec4(shift)) & vec4(3u)) | (join_bits((codes[1] >> vec4(shift)) & vec4(3u)) << 8u) |
    (join_bits((codes[2] >> vec4(shift)) & vec4(3u)) << 16u) | (join_bits((codes[3] >> vec4(shift)) & vec4(3u)) << 24u);
}
