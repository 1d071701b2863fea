// What the kernels of a draw share. A token's depth is how far its logit lies below the best one, in temperatures, so
// that exp(-depth) is its probability beside the best token's. Tokens from RANGE on, less likely than one in a billion
// beside the best, are never drawn; the others are in bins of equal depths.
//
// selection u32 [sequences, 2 + 2 bins]: |bits of the best logit|key that a token must reach|counts|masses|, the last
// two by bin. A mass counts 1 / mass_unit() of the probability at which its bin begins, so that all bins have the same
// precision. From the kernel: `length`.
override bins: u32 = 256;

const RANGE = 21.0;

// |temperature f32|top_p f32|top_k, 0 for all|seed|
@group(0) @binding(2) var<storage, read> settings: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> selection: array<atomic<u32>>;

fn selection_words() -> u32 {
  return 2u + 2u * bins;
}

fn has_top_k(own: vec4<u32>) -> bool {
  return own.z != 0u && own.z < length;
}

fn has_top_p(own: vec4<u32>) -> bool {
  return bitcast<f32>(own.y) < 1.0;
}

fn best_logit(sequence_index: u32) -> f32 {
  return bitcast<f32>(atomicLoad(&selection[sequence_index * selection_words()]));
}

fn depth_of(value: f32, best: f32, own: vec4<u32>) -> f32 {
  return (best - value) / bitcast<f32>(own.x);
}

// `bins` and more for what is never drawn.
fn bin_of(depth: f32) -> u32 {
  return u32(min(depth * (f32(bins) / RANGE), f32(bins)));
}

// Depth at which a bin begins.
fn bin_start(bin: u32) -> f32 {
  return f32(bin) * (RANGE / f32(bins));
}

fn mass_of(depth: f32) -> u32 {
  return u32(exp(bin_start(bin_of(depth)) - depth) * mass_unit() + 0.5);
}

// As large as all tokens in one bin allow.
fn mass_unit() -> f32 {
  return f32(min(65536u, 0x80000000u / length));
}

// An integer that orders as the float does.
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
