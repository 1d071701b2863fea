// needs: pick_best
// Takes the best candidate as the next token of each of some sequences: appends it, moves the position on and makes its
// embedding the next step's input, so that a step follows the other without the host.
//
// Bindings:
//   0 candidates  vec2<u32> [tokens, candidate_count]  bits of the logit, token
//   1 embedding   u32 [rows, hidden / 2]       two f16 each: the tokens from first_row on
//   2 sequence    vec2<u32> [tokens]           position, index of the sequence in the cache
//   3 tokens      u32 [sequences, stride]      token of each position
//   4 hidden      f32 [tokens, hidden]
//
// Mapping: a workgroup a token, its index in z; one dispatch for each slab of the embedding, of which the last moves
// on. Where no candidate is a token, NOT_A_NUMBER is stored, and the input stays as it was.
override candidate_count: u32 = 1;
override first_row: u32 = 0;
override rows: u32 = 1;
override hidden_size: u32 = 2;
override stride: u32 = 0; // of the tokens of two sequences
override moves_on: u32 = 1;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> embedding: array<u32>;
@group(0) @binding(2) var<storage, read_write> sequence: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  var best = no_best();
  for (var i = thread; i < candidate_count; i += workgroup_size) {
    let other = candidates[workgroup.z * candidate_count + i];
    best = better(best, Best(bitcast<f32>(other.x), other.y));
  }
  best = best_of_workgroup(best, thread);
  if (best.index >= first_row && best.index - first_row < rows) {
    let row = (best.index - first_row) * (hidden_size / 2u);
    for (var i = thread; i < hidden_size / 2u; i += workgroup_size) {
      let pair = unpack2x16float(embedding[row + i]);
      hidden[workgroup.z * hidden_size + 2u * i] = pair.x;
      hidden[workgroup.z * hidden_size + 2u * i + 1u] = pair.y;
    }
  }
  if (thread == 0u && moves_on == 1u) {
    let own = sequence[workgroup.z] + vec2(1u, 0u);
    sequence[workgroup.z] = own;
    tokens[own.y * stride + own.x] = index_of(best);
  }
}
