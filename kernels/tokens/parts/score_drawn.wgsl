// needs: sampling
// is: score
// The race of a draw: token i arrives after an exponential time of rate exp(-depth), so that the first one of those
// that are kept is a draw by their probabilities. Times are compared by their negative logarithms. The random number
// belongs to seed, position and token, so a draw is the same however tokens are spread over threads.

@group(0) @binding(4) var<storage, read> sequence: array<vec2<u32>>; // position, and another word

fn scored(sequence_index: u32, i: u32) -> Best {
  let value = logits[sequence_index * length + i];
  let own = candidate(value, i);
  if (own.index >= length) { return own; }
  let settings_of_own = settings[sequence_index];
  let depth = depth_of(value, best_logit(sequence_index), settings_of_own);
  let threshold = atomicLoad(&selection[sequence_index * selection_words() + 1u]);
  if (bin_of(depth) >= bins || key_of(value) < threshold) { return no_best(); }
  let random = hash(hash(hash(settings_of_own.w) ^ sequence[sequence_index].x) ^ i);
  return Best(-depth - log(exponential(random)), i);
}

// -log(1 - v) for v = (bits + 1/2) / 2^32, of full precision where it is small, as that of a winner is.
fn exponential(bits: u32) -> f32 {
  let v = min((f32(bits) + 0.5) * 2.3283064365386963e-10, 0.99999994);
  let series = v * (1.0 + v * (0.5 + v * (0.33333333 + 0.25 * v)));
  return select(-log(1.0 - v), series, v < 0.0625);
}

// PCG's output permutation over one step of its generator.
fn hash(value: u32) -> u32 {
  let state = value * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}
