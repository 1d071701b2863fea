// needs: relay fill_values
// Groups of 16 channels that are packed where they are made, so that who needs them only puts their words into its
// cells (product/parts/cells.wgsl). A value has 15 bits, the largest of a group is HANDED_LARGEST. A group is 11 words,
// each with its tag as in relay.wgsl; for j = 0..3, channel 4i + j in byte i, from the highest bit on:
//
//   high j   |lo 0: bit 1|hi 3: 7b|lo 0: bit 0|hi 2: 7b|tag: bit 1|hi 1: 7b|tag: bit 0|hi 0: 7b|
//   low j    |lo 3: 8b|lo 2: 8b|lo 1: 8b|lo 0: bits 2 to 7|tag: 2b|
//   512 times the step, sum of the values in steps, sum of the squares before a norm's weights: f32 with tags
//
// With activations of 8 bits a group is 7 words, without those of low bytes; what a tag takes the place of, bits 0 and 1
// of byte 0 of word j, is in the sum, which counts in 64ths: 64 sum + bits 4^j.
//
//   high j   |hi 3: 8b|hi 2: 8b|hi 1: 8b|hi 0: bits 2 to 7|tag: 2b|
//
// 32 groups lie side by side: word 0 of all, word 1 of all, ..., in three blocks of the relay, the last word unused.
const HANDED_LARGEST = 16128.0;
const GROUP_BLOCKS = 3u;

struct HandedGroup {
  high: vec4<u32>,
  low: vec4<u32>,
  step512: u32,
  sum: u32,
  squares: u32,
}

// Packs four channels of a group, c + {0, 4, 8, 12}, together with the three threads beside it, and hands them over
// where there is such a quarter. All threads of a subgroup call it.
fn hand_over_quarter(
  first: u32,
  quarter: u32,
  values: vec4<f32>,
  squares: f32,
  own_tag: u32,
  exists: bool,
  thread: u32,
) {
  let j = quarter % 4u;
  let largest = max_of_four(largest_bits(values), thread);
  let step = group_step(largest, select(HANDED_LARGEST, LARGEST_BYTE, activation_bits == 8u));
  var word = Quantized(0u, 0u, 0.0);
  if (exists) { word = quantize(values, step, unit_of(j)); }
  var own_sum = word.sum;
  if (activation_bits == 8u) { own_sum = 64.0 * word.sum + f32((word.hi & TAG_MASK) << (2u * j)); }
  let sum = sum_strided(own_sum, thread, 1u, 4u);
  let all_squares = sum_strided(squares, thread, 1u, 4u);
  if (exists) {
    let block = first / 128u + quarter / 128u * GROUP_BLOCKS;
    let lane = quarter / 4u % 32u;
    if (activation_bits == 8u) {
      atomicStore(&relay[block][j][lane], (word.hi & ~TAG_MASK) | own_tag);
    } else {
      let high = (word.hi & 0x7f7f7f7fu) | high_tag(own_tag) | ((word.lo & 1u) << 23u) | ((word.lo & 2u) << 30u);
      atomicStore(&relay[block][j][lane], high);
      atomicStore(&relay[block + 1u][j][lane], (word.lo & ~TAG_MASK) | own_tag);
    }
    let of_all = select(select(all_squares, sum, j == 1u), group_step512(largest, step), j == 0u);
    if (j < 3u) { atomicStore(&relay[block + 2u][j][lane], tagged(of_all, own_tag)); }
  }
}

fn high_tag(own_tag: u32) -> u32 {
  return ((own_tag & 1u) << 7u) | ((own_tag & 2u) << 14u);
}

// Word of a group's step.
fn step_place(first: u32, group: u32) -> u32 {
  return first + group / 32u * (GROUP_BLOCKS * 128u) + 256u + group % 32u;
}

// The words of a group; they may not have come yet.
fn load_handed(first: u32, group: u32) -> HandedGroup {
  let block = first / 128u + group / 32u * GROUP_BLOCKS;
  let lane = group % 32u;
  var low: vec4<u32>;
  if (activation_bits > 8u) { low = relay_words(block + 1u, lane); }
  return HandedGroup(
    relay_words(block, lane),
    low,
    atomicLoad(&relay[block + 2u][0][lane]),
    atomicLoad(&relay[block + 2u][1][lane]),
    atomicLoad(&relay[block + 2u][2][lane]),
  );
}

fn is_handed_stale(words: HandedGroup) -> bool {
  let others = (words.step512 ^ tag) | (words.sum ^ tag) | (words.squares ^ tag);
  if (activation_bits == 8u) { return ((changed_bits(words.high, tag) | others) & TAG_MASK) != 0u; }
  let high = changed_bits(words.high, high_tag(tag)) & high_tag(TAG_MASK);
  return (high | ((changed_bits(words.low, tag) | others) & TAG_MASK)) != 0u;
}

fn changed_bits(words: vec4<u32>, expected: u32) -> u32 {
  let changed = words ^ vec4(expected);
  return changed.x | changed.y | changed.z | changed.w;
}

// Waits for a group.
fn await_handed(first: u32, group: u32, asked: HandedGroup) -> HandedGroup {
  var words = asked;
  for (var polls = 0u; looks_again(is_handed_stale(words), polls); polls++) { words = load_handed(first, group); }
  return words;
}

// Puts a group into its cell. Returns the sum of its squares.
fn put_handed(words: HandedGroup, cell: u32) -> f32 {
  var sum = bitcast<f32>(words.sum & ~TAG_MASK);
  if (activation_bits == 8u) {
    let whole = floor(sum * (1.0 / 256.0));
    let replaced = vec4(u32(sum - 256.0 * whole)) >> vec4(0u, 2u, 4u, 6u);
    cell_hi[cell] = (words.high & vec4(~TAG_MASK)) | (replaced & vec4(TAG_MASK));
    sum = 4.0 * whole;
  } else {
    cell_hi[cell] = (words.high & vec4(0x7f7f7f7fu)) | ((words.high & vec4(0x40404040u)) << vec4(1u));
    cell_lo[cell] = (words.low & vec4(~TAG_MASK)) | ((words.high >> vec4(23u)) & vec4(1u)) |
      ((words.high >> vec4(30u)) & vec4(2u));
  }
  let step512 = select(bitcast<f32>(words.step512 & ~TAG_MASK), not_a_number(), gave_up != 0u);
  cell_sum[cell] = vec2(step512, sum);
  return bitcast<f32>(words.squares & ~TAG_MASK);
}
