// needs: decode token_range
// Matrix-matrix product with packed weights for few tokens: y[t, r] = sum over c of w[r, c] x[t, c], in f32; sums of
// parts of the channels, which few_sums.wgsl adds up.
//
// Bindings (H = half_blocks, half blocks of 64 channels in a row; Q = quads of rows):
//   0 range       uniform, see tokens/parts/token_range.wgsl
//   1 base        vec4<u32> [rows, H]        2 bits x 64 channels: |group 0: c15..c0|group 1|group 2|group 3|
//   2 refine      vec4<u32> [Q, words]       2 bits x 16 channels of each refined group, of four rows
//   3 meta_words  vec4<u32> [Q, H]           |pick 4b|zero 3b, scale 4b| x 4, group 0 lowest, of four rows
//   4 tile_scale  vec2<u32> [tiles, H]       d of four groups, f16 each; H rounded up to even
//   5 x           vec4<f32> [tokens, channels / 4]
//   6 partials    vec4<f32> [splits, tokens of the dispatch, Q]
//
// Mapping: a thread makes the sums of four rows x `tokens` tokens in registers; it decodes a weight once for all of them,
// exactly, and multiplies it where it is. The threads of a team have neighbouring quads of rows and share activations,
// a group of 16 channels at a time, which they bring into workgroup memory a group ahead. Teams take half blocks in
// turn, `run` each; their sums are added up in the end. workgroup.x is the tile of tokens, y that
// of rows, tiles of a split side by side: a step of fewer tokens leaves out workgroups by their z.
// The body of the inner loop is small on purpose: a scheduler's instruction cache holds about 700 instructions.
override rows: u32 = 1;
override channels: u32 = 4; // a multiple of 4
override half_blocks: u32 = 2;
override refine_every: u32 = 8; // 0 for none
override run: u32 = 1;
override tokens: u32 = 16; // 4, 8 or 16
override row_tiles: u32 = 1; // of 128 rows

@group(0) @binding(1) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> refine: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> meta_words: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> tile_scale: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>;

const TEAM = 32u;
const TEAMS = 4u;

// [buffer, team, quad of channels][token]; in the end [token, quad of rows / 16][quad of rows % 16].
var<workgroup> tile: array<array<vec4<f32>, 16>, 32>;

// One entry a token: four rows.
alias Sums = array<vec4<f32>, 16>;

// Four rows' weights of four channels.
alias Weights = array<vec4<f32>, 4>;

// Half a block of four rows.
struct Words {
  base0: vec4<u32>,
  base1: vec4<u32>,
  base2: vec4<u32>,
  base3: vec4<u32>,
  meta_words: vec4<u32>,
  scales: vec2<u32>,
  refine: vec4<u32>,
}

// Two vectors of activations that a thread brings along.
struct Activations {
  first: vec4<f32>,
  second: vec4<f32>,
}

// Of a group and four rows: w = f factor + offset, where f = 1 + code / 16; see `decode`. Codes have four bits, base
// bits above refine bits, those of even and of odd channels in a word each.
struct Group {
  mask: u32,
  factor: vec4<f32>,
  offset: vec4<f32>,
  even: vec4<u32>,
  odd: vec4<u32>,
}

struct Place {
  first_token: u32,
  quad: u32,
  team: u32,
  lane: u32,
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_token = workgroup.x * tokens;
  if (first_token >= range.tokens) { return; }
  let quads = (rows + 3u) / 4u;
  let split = workgroup.y / row_tiles;
  let own_quad = workgroup.y % row_tiles * TEAM + thread % TEAM;
  let place = Place(first_token, min(own_quad, quads - 1u), thread / TEAM, thread % TEAM);
  // A compiler that knew it would spend two instructions on each mask, see CodeMasks.
  let always_zero = workgroup.y >> 16u;
  let first = split * run * TEAMS + place.team;
  var sums: Sums;
  put_activations(load_activations(place, first, 0u), 0u, place);
  workgroupBarrier();
  for (var i = 0u; i < run; i++) {
    let half_block = first + i * TEAMS;
    let words = load_words(place.quad, half_block);
    for (var group = 0u; group < 4u; group++) {
      let next_half_block = select(half_block, half_block + TEAMS, group == 3u);
      let next = load_activations(place, next_half_block, (group + 1u) % 4u);
      var codes = group_of(words, place.quad, half_block, group, always_zero);
      for (var quad = 0u; quad < 4u; quad++) {
        multiply_quad((group % 2u * TEAMS + place.team) * 4u + quad, decode_quad(codes), &sums);
        codes.even >>= vec4(8u);
        codes.odd >>= vec4(8u);
      }
      put_activations(next, (group + 1u) % 2u, place);
      workgroupBarrier();
    }
  }
  add_teams(place, &sums);
  if (place.team == 0u && own_quad < quads) {
    let at = (split * num_tokens() + first_token) * quads + own_quad;
    write_sums(at, quads, &sums);
  }
}

fn load_words(quad: u32, wanted: u32) -> Words {
  let half_block = min(wanted, half_blocks - 1u);
  let at = 4u * quad * half_blocks + half_block;
  let last = rows - 1u - 4u * quad;
  var words: Words;
  words.base0 = base[at];
  words.base1 = base[at + min(1u, last) * half_blocks];
  words.base2 = base[at + min(2u, last) * half_blocks];
  words.base3 = base[at + min(3u, last) * half_blocks];
  words.meta_words = meta_words[quad * half_blocks + half_block];
  words.scales = tile_scale[quad / 4u * ((half_blocks + 1u) / 2u * 2u) + half_block];
  if (refine_every >= 4u) { words.refine = refine[first_run(quad, half_block)]; }
  return words;
}

// Refine words of a half block's first group.
fn first_run(quad: u32, half_block: u32) -> u32 {
  let every = max(refine_every, 1u);
  return quad * ((4u * half_blocks + every - 1u) / every) + 4u * half_block / every;
}

fn group_of(words: Words, quad: u32, wanted: u32, group: u32, always_zero: u32) -> Group {
  let masks = code_masks(always_zero);
  let d = 512.0 * unpack2x16float(select(words.scales.x, words.scales.y, group >= 2u) >> (16u * (group % 2u))).x;
  let codes = (words.meta_words >> vec4(7u * group)) << vec4(14u);
  let scale = vec4(
    scale_of(codes.x, masks, d),
    scale_of(codes.y, masks, d),
    scale_of(codes.z, masks, d),
    scale_of(codes.w, masks, d),
  );
  let zeros = vec4(
    zero_plus(codes.x, masks),
    zero_plus(codes.y, masks),
    zero_plus(codes.z, masks),
    zero_plus(codes.w, masks),
  );
  var zero = zeros - vec4(ZERO_PLUS);
  var fine = vec4(0u);
  if (refine_every != 0u) {
    let half_block = min(wanted, half_blocks - 1u);
    fine = words.refine;
    if (refine_every < 4u) { fine = refine[first_run(quad, half_block) + group / max(refine_every, 1u)]; }
    let is_refined = refined(words.meta_words >> vec4(28u), 4u * half_block + group);
    fine = select(vec4(0u), fine, is_refined);
    zero = select(zero, fma(vec4(0.75), zero, vec4(0.75)), is_refined);
  }
  let word = vec4(
    pick_word(words.base0, group),
    pick_word(words.base1, group),
    pick_word(words.base2, group),
    pick_word(words.base3, group),
  );
  let even = ((word << vec4(2u)) & vec4(0xccccccccu)) | (fine & vec4(0x33333333u));
  let odd = (word & vec4(0xccccccccu)) | ((fine >> vec4(2u)) & vec4(0x33333333u));
  return Group(0x00780000u + always_zero, 4.0 * scale, -(4.0 + zero) * scale, even, odd);
}

fn refined(pick: vec4<u32>, group: u32) -> vec4<bool> {
  if (refine_every == 1u) { return vec4(true); }
  if (refine_every == 2u) { return ((pick >> vec4(group / 2u % 2u)) & vec4(1u)) == vec4(group % 2u); }
  return pick == vec4(group % max(refine_every, 1u));
}

// Four channels, whose codes are the lowest of their words.
fn decode_quad(group: Group) -> Weights {
  return Weights(
    decode(group.even << vec4(19u), group),
    decode(group.odd << vec4(19u), group),
    decode(group.even << vec4(15u), group),
    decode(group.odd << vec4(15u), group),
  );
}

// w = (code / 4 - zero) scale as one multiply-add, exactly: the code goes to the top of the mantissa of f.
fn decode(codes: vec4<u32>, group: Group) -> vec4<f32> {
  let f = bitcast<vec4<f32>>((codes & vec4(group.mask)) | vec4(0x3f800000u));
  return fma(f, group.factor, group.offset);
}

fn num_tokens() -> u32 {
  return (range.tokens + tokens - 1u) / tokens * tokens;
}

// The activations of a group that a thread brings: tokens thread / 4 and, of 16, thread / 4 + 8; zeros past the end.
fn load_activations(place: Place, half_block: u32, group: u32) -> Activations {
  let chunk = half_block * 16u + group * 4u + place.lane % 4u;
  let token = place.lane / 4u;
  var loaded: Activations;
  loaded.first = activations_at(place.first_token + token, chunk);
  if (tokens > 8u) { loaded.second = activations_at(place.first_token + token + 8u, chunk); }
  return loaded;
}

fn activations_at(token: u32, chunk: u32) -> vec4<f32> {
  let chunks = channels / 4u;
  let value = x[min(token, range.tokens - 1u) * chunks + min(chunk, chunks - 1u)];
  return select(vec4(0.0), value, chunk < chunks);
}

fn put_activations(loaded: Activations, buffer: u32, place: Place) {
  let slot = (buffer * TEAMS + place.team) * 4u + place.lane % 4u;
  tile[slot][place.lane / 4u] = loaded.first;
  if (tokens > 8u) { tile[slot][place.lane / 4u + 8u] = loaded.second; }
}

fn multiply_quad(slot: u32, w: Weights, sums: ptr<function, Sums>) {
  multiply_token(0u, tile[slot][0u], w, sums);
  multiply_token(1u, tile[slot][1u], w, sums);
  multiply_token(2u, tile[slot][2u], w, sums);
  multiply_token(3u, tile[slot][3u], w, sums);
  if (tokens > 4u) {
    multiply_token(4u, tile[slot][4u], w, sums);
    multiply_token(5u, tile[slot][5u], w, sums);
    multiply_token(6u, tile[slot][6u], w, sums);
    multiply_token(7u, tile[slot][7u], w, sums);
  }
  if (tokens > 8u) {
    multiply_token(8u, tile[slot][8u], w, sums);
    multiply_token(9u, tile[slot][9u], w, sums);
    multiply_token(10u, tile[slot][10u], w, sums);
    multiply_token(11u, tile[slot][11u], w, sums);
    multiply_token(12u, tile[slot][12u], w, sums);
    multiply_token(13u, tile[slot][13u], w, sums);
    multiply_token(14u, tile[slot][14u], w, sums);
    multiply_token(15u, tile[slot][15u], w, sums);
  }
}

fn multiply_token(token: u32, activations: vec4<f32>, w: Weights, sums: ptr<function, Sums>) {
  let two = fma(w[1], vec4(activations.y), fma(w[0], vec4(activations.x), (*sums)[token]));
  (*sums)[token] = fma(w[3], vec4(activations.w), fma(w[2], vec4(activations.z), two));
}

// Leaves the sums of all teams with the first one.
fn add_teams(place: Place, sums: ptr<function, Sums>) {
  for (var team = 1u; team < TEAMS; team++) {
    if (place.team == team) { put_sums(place.lane, sums); }
    workgroupBarrier();
    if (place.team == 0u) { take_sums(place.lane, sums); }
    workgroupBarrier();
  }
}

fn put_sums(lane: u32, sums: ptr<function, Sums>) {
  tile[0u + lane / 16u][lane % 16u] = (*sums)[0u];
  tile[2u + lane / 16u][lane % 16u] = (*sums)[1u];
  tile[4u + lane / 16u][lane % 16u] = (*sums)[2u];
  tile[6u + lane / 16u][lane % 16u] = (*sums)[3u];
  if (tokens > 4u) {
    tile[8u + lane / 16u][lane % 16u] = (*sums)[4u];
    tile[10u + lane / 16u][lane % 16u] = (*sums)[5u];
    tile[12u + lane / 16u][lane % 16u] = (*sums)[6u];
    tile[14u + lane / 16u][lane % 16u] = (*sums)[7u];
  }
  if (tokens > 8u) {
    tile[16u + lane / 16u][lane % 16u] = (*sums)[8u];
    tile[18u + lane / 16u][lane % 16u] = (*sums)[9u];
    tile[20u + lane / 16u][lane % 16u] = (*sums)[10u];
    tile[22u + lane / 16u][lane % 16u] = (*sums)[11u];
    tile[24u + lane / 16u][lane % 16u] = (*sums)[12u];
    tile[26u + lane / 16u][lane % 16u] = (*sums)[13u];
    tile[28u + lane / 16u][lane % 16u] = (*sums)[14u];
    tile[30u + lane / 16u][lane % 16u] = (*sums)[15u];
  }
}

fn take_sums(lane: u32, sums: ptr<function, Sums>) {
  (*sums)[0u] += tile[0u + lane / 16u][lane % 16u];
  (*sums)[1u] += tile[2u + lane / 16u][lane % 16u];
  (*sums)[2u] += tile[4u + lane / 16u][lane % 16u];
  (*sums)[3u] += tile[6u + lane / 16u][lane % 16u];
  if (tokens > 4u) {
    (*sums)[4u] += tile[8u + lane / 16u][lane % 16u];
    (*sums)[5u] += tile[10u + lane / 16u][lane % 16u];
    (*sums)[6u] += tile[12u + lane / 16u][lane % 16u];
    (*sums)[7u] += tile[14u + lane / 16u][lane % 16u];
  }
  if (tokens > 8u) {
    (*sums)[8u] += tile[16u + lane / 16u][lane % 16u];
    (*sums)[9u] += tile[18u + lane / 16u][lane % 16u];
    (*sums)[10u] += tile[20u + lane / 16u][lane % 16u];
    (*sums)[11u] += tile[22u + lane / 16u][lane % 16u];
    (*sums)[12u] += tile[24u + lane / 16u][lane % 16u];
    (*sums)[13u] += tile[26u + lane / 16u][lane % 16u];
    (*sums)[14u] += tile[28u + lane / 16u][lane % 16u];
    (*sums)[15u] += tile[30u + lane / 16u][lane % 16u];
  }
}

fn write_sums(at: u32, quads: u32, sums: ptr<function, Sums>) {
  partials[at + 0u * quads] = (*sums)[0u];
  partials[at + 1u * quads] = (*sums)[1u];
  partials[at + 2u * quads] = (*sums)[2u];
  partials[at + 3u * quads] = (*sums)[3u];
  if (tokens > 4u) {
    partials[at + 4u * quads] = (*sums)[4u];
    partials[at + 5u * quads] = (*sums)[5u];
    partials[at + 6u * quads] = (*sums)[6u];
    partials[at + 7u * quads] = (*sums)[7u];
  }
  if (tokens > 8u) {
    partials[at + 8u * quads] = (*sums)[8u];
    partials[at + 9u * quads] = (*sums)[9u];
    partials[at + 10u * quads] = (*sums)[10u];
    partials[at + 11u * quads] = (*sums)[11u];
    partials[at + 12u * quads] = (*sums)[12u];
    partials[at + 13u * quads] = (*sums)[13u];
    partials[at + 14u * quads] = (*sums)[14u];
    partials[at + 15u * quads] = (*sums)[15u];
  }
}
