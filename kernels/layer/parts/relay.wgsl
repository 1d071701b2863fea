// Values that workgroups of one dispatch hand to each other while they run, without a barrier between them.
//
// WGSL orders nothing between workgroups but the changes of one atomic. So every value is an atomic of its own that
// says by itself whether it has come: its two lowest bits are the tag of the layer, which differs from that of the
// layer before; who needs it loads it again until the tag is right. What is lost is 2 of 24 bits. A value is only
// overwritten in the next layer, by a workgroup that has waited for what others made of it.
//
// WGSL doesn't promise that workgroups run side by side either. How many do is counted once (count_residents), and no
// more are started. Should one not come after all, those that wait for it give up, say so in STATUS and go on with NaN;
// the others look there now and then.
//
// Vectors of single values lie in the order in which product/parts/fill_values.wgsl takes them: 32 quarters of groups,
// each with its first channel, then all with their second, and so on, so that the lanes of a subgroup load neighbouring
// words. The type of the buffer says so, since then the index of a quarter is checked once for its four words.
//
// From the kernel: the override `most_polls`.
const STATUS = 0u; // 1: some workgroup gave up
const ARRIVED = 1u; // workgroups that have come to be counted
const RESIDENT = 2u; // those that ran side by side
const TAG_MASK = 3u;

@group(0) @binding(5) var<storage, read_write> relay: array<array<array<atomic<u32>, 32>, 4>>;

var<private> tag: u32;
var<private> gave_up: u32;

// Word of channel c of a vector.
fn relay_place(channel: u32) -> u32 {
  return quarter_place(channel / 16u * 4u + channel % 4u) + 32u * (channel / 4u % 4u);
}

// Word of the first channel of a quarter; the next are 32 words apart.
fn quarter_place(quarter: u32) -> u32 {
  return quarter / 32u * 128u + quarter % 32u;
}

fn relay_load(at: u32) -> u32 {
  return atomicLoad(&relay[at / 128u][at / 32u % 4u][at % 32u]);
}

fn relay_put(at: u32, value: f32) {
  atomicStore(&relay[at / 128u][at / 32u % 4u][at % 32u], tagged(value, tag));
}

fn tagged(value: f32, own_tag: u32) -> u32 {
  return (rounded_bits(value) & ~TAG_MASK) | own_tag;
}

// What is not a number is put as another such: NVIDIA's, 0x7fffffff, would be rounded to -0.
fn rounded_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits + 2u, 0x7fc00000u, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn relay_four(at: vec4<u32>) -> vec4<u32> {
  return vec4(relay_load(at.x), relay_load(at.y), relay_load(at.z), relay_load(at.w));
}

fn values_of(words: vec4<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(words & vec4(~TAG_MASK));
}

// The words of a quarter of a vector that starts at `first`; they may not have come yet.
fn relay_quarter(first: u32, quarter: u32) -> vec4<u32> {
  return relay_words(first / 128u + quarter / 32u, quarter % 32u);
}

fn relay_words(block: u32, lane: u32) -> vec4<u32> {
  return vec4(
    atomicLoad(&relay[block][0][lane]),
    atomicLoad(&relay[block][1][lane]),
    atomicLoad(&relay[block][2][lane]),
    atomicLoad(&relay[block][3][lane]),
  );
}

// Waits for a word.
fn relay_await(at: u32) -> f32 {
  var word = relay_load(at);
  for (var polls = 0u; looks_again(((word ^ tag) & TAG_MASK) != 0u, polls); polls++) { word = relay_load(at); }
  if (gave_up != 0u) { return not_a_number(); }
  return bitcast<f32>(word & ~TAG_MASK);
}

// Whether to load words again, which have been so many times: while their tags are not yet right, unless it is in vain.
fn looks_again(are_stale: bool, polls: u32) -> bool {
  if (!are_stale || gave_up != 0u) { return false; }
  if (polls > most_polls || (polls % 1024u == 1023u && atomicLoad(&relay[0][0][STATUS]) != 0u)) {
    gave_up = 1u;
    atomicStore(&relay[0][0][STATUS], 1u);
  }
  return gave_up == 0u;
}

// A compiler may take a constant for an error.
fn not_a_number() -> f32 {
  return bitcast<f32>(0x7fc00000u | gave_up);
}

// Counts the workgroups that run side by side: each waits so long that all that fit have come; the first to end says
// how many there were.
fn count_residents(polls: u32, thread: u32) {
  if (thread != 0u) { return; }
  atomicAdd(&relay[0][0][ARRIVED], 1u);
  var arrived = 0u;
  for (var i = 0u; i < polls; i++) { arrived = max(arrived, atomicLoad(&relay[0][0][ARRIVED])); }
  // It may fail without a reason.
  var result = atomicCompareExchangeWeak(&relay[0][0][RESIDENT], 0u, arrived);
  while (!result.exchanged && result.old_value == 0u) {
    result = atomicCompareExchangeWeak(&relay[0][0][RESIDENT], 0u, arrived);
  }
}
