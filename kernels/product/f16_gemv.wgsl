// needs: chunks outputs reduce halves
// Matrix-vector product with f16 weights, the baseline: y[r] = sum over c of w[r, c] x[c], summed in f32.
//
// Bindings (C = chunks of 8 channels in a row):
//   0 weights  vec4<u32> [rows, C]    8 f16, channel 0 in the low half of the first word
//   1 x        f16 or f32 [tokens, 8 C], see half_chunks.wgsl and float_chunks.wgsl
//   2 y        f32 [tokens, token_rows], of which `rows` (silu_product: half as many) are written
//
// Mapping: one workgroup is one team (a subgroup) and takes a pair of rows, or two pairs that share each load of x,
// which pays where x is f32 and normed; for silu_product a pair is a gate row and its up row. Its lanes read
// neighbouring chunks.
// Eight chunks of weights are in flight at once. Many small workgroups let the device balance the load by itself: with
// four teams in a workgroup an H200 was a tenth slower. workgroup.z is the token.
override rows: u32 = 1;
override token_rows: u32 = 1; // rows of y from one token to the next
override y_row: u32 = 0; // of row 0, where a matrix is one of several that make y
override chunks: u32 = 1;
override team: u32 = 32;
override workgroup_size: u32 = 32; // = team
override pairs: u32 = 1; // or 2
override output_kind: u32 = 0; // see product/parts/outputs.wgsl

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let pair = (workgroup.y * count.x + workgroup.x) * pairs;
  let rows_of_team = vec4(pair_rows(pair), pair_rows(pair + pairs - 1u));
  let dots = dot_rows(min(rows_of_team, vec4(rows - 1u)) * chunks, workgroup.z, lane);
  let factor = input_factor(sum_strided(dots.squares, lane, 1u, team));
  let first = vec2(sum_strided(dots.first.x, lane, 1u, team), sum_strided(dots.first.y, lane, 1u, team));
  write_pair(workgroup.z, rows_of_team.xy, factor * first, lane);
  if (pairs == 2u) {
    let second = vec2(sum_strided(dots.second.x, lane, 1u, team), sum_strided(dots.second.y, lane, 1u, team));
    write_pair(workgroup.z, rows_of_team.zw, factor * second, lane);
  }
}

fn pair_rows(pair: u32) -> vec2<u32> {
  if (output_kind == SILU_PRODUCT) { return vec2(pair, rows / 2u + pair); }
  return vec2(2u * pair, 2u * pair + 1u);
}

fn write_pair(token: u32, pair: vec2<u32>, sums: vec2<f32>, lane: u32) {
  let first = token * token_rows + y_row;
  if (lane != 0u) { return; }
  if (output_kind == SILU_PRODUCT) {
    if (pair.x < rows / 2u) { y[first + pair.x] = silu_product(sums.x, sums.y); }
    return;
  }
  if (pair.x < rows) { write_row(first + pair.x, sums.x); }
  if (pair.y < rows) { write_row(first + pair.y, sums.y); }
}

// 8 channels of the input, and the sum of their squares where a norm needs it.
struct Chunk {
  low: vec4<f32>,
  high: vec4<f32>,
  squares: f32,
}

// A lane's share of the products of two pairs of rows with a token, and of the sum of the token's squares.
struct Dots {
  first: vec2<f32>,
  second: vec2<f32>,
  squares: f32,
}

// Past the end of a row a chunk is the last again, left out of the sum.
fn dot_rows(starts: vec4<u32>, token: u32, lane: u32) -> Dots {
  if (pairs == 2u) { return dot_two_pairs(starts, token, lane); }
  var dots: Dots;
  for (var chunk = lane; chunk < chunks; chunk += 4u * team) {
    let wanted = vec4(chunk) + vec4(0u, 1u, 2u, 3u) * team;
    let at = min(wanted, vec4(chunks - 1u));
    let is_own = wanted < vec4(chunks);
    let a = load_pair(starts.xy, at.x);
    let b = load_pair(starts.xy, at.y);
    let c = load_pair(starts.xy, at.z);
    let d = load_pair(starts.xy, at.w);
    dots = add_pair(dots, a, load_chunk(token, at.x), true);
    dots = add_pair(dots, b, load_chunk(token, at.y), is_own.y);
    dots = add_pair(dots, c, load_chunk(token, at.z), is_own.z);
    dots = add_pair(dots, d, load_chunk(token, at.w), is_own.w);
  }
  return dots;
}

fn dot_two_pairs(starts: vec4<u32>, token: u32, lane: u32) -> Dots {
  var dots: Dots;
  for (var chunk = lane; chunk < chunks; chunk += 2u * team) {
    let next = min(chunk + team, chunks - 1u);
    let is_own = chunk + team < chunks;
    let a = load_pair(starts.xy, chunk);
    let b = load_pair(starts.zw, chunk);
    let c = load_pair(starts.xy, next);
    let d = load_pair(starts.zw, next);
    let now_x = load_chunk(token, chunk);
    dots = add_pair(dots, a, now_x, true);
    dots.second += dot_pair(b, now_x);
    let next_x = load_chunk(token, next);
    dots = add_pair(dots, c, next_x, is_own);
    dots.second += select(vec2(0.0), dot_pair(d, next_x), is_own);
  }
  return dots;
}

// A chunk of two rows.
struct Pair {
  row0: vec4<u32>,
  row1: vec4<u32>,
}

fn load_pair(starts: vec2<u32>, chunk: u32) -> Pair {
  return Pair(weights[starts.x + chunk], weights[starts.y + chunk]);
}

fn add_pair(dots: Dots, pair: Pair, x: Chunk, is_own: bool) -> Dots {
  let sums = select(vec2(0.0), dot_pair(pair, x), is_own);
  return Dots(dots.first + sums, dots.second, dots.squares + select(0.0, x.squares, is_own));
}

fn dot_pair(pair: Pair, x: Chunk) -> vec2<f32> {
  return vec2(dot_halves(pair.row0, x.low, x.high), dot_halves(pair.row1, x.low, x.high));
}

fn write_row(at: u32, sum: f32) {
  if (output_kind == ADD) { y[at] += sum; } else { y[at] = sum; }
}
