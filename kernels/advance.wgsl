// Takes the best candidate as the next token: appends it, moves the position on and makes its embedding the next
// step's input, so that a step follows the other without the host.
//
// Bindings:
//   0 candidates  vec2<u32> [candidate_count]  bits of the logit, token
//   1 embedding   u32 [rows, hidden / 2]       two f16 each: the tokens from first_row on
//   2 sequence    u32                          word 0: position
//   3 tokens      u32 [capacity + 1]           token of each position
//   4 hidden      f32 [hidden]
//
// Mapping: one workgroup; one dispatch for each slab of the embedding, of which the last moves on. Where no
// candidate is a token, NOT_A_NUMBER is stored, and the input stays as it was.
override candidate_count: u32 = 1;
override first_row: u32 = 0;
override rows: u32 = 1;
override hidden_size: u32 = 2;
override moves_on: u32 = 1;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> embedding: array<u32>;
@group(0) @binding(2) var<storage, read_write> sequence: array<u32>;
@group(0) @binding(3) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(local_invocation_index) thread: u32) {
  var best = no_best();
  for (var i = thread; i < candidate_count; i += workgroup_size) {
    best = better(best, Best(bitcast<f32>(candidates[i].x), candidates[i].y));
  }
  best = best_of_workgroup(best, thread);
  if (best.index >= first_row && best.index - first_row < rows) {
    let row = (best.index - first_row) * (hidden_size / 2u);
    for (var i = thread; i < hidden_size / 2u; i += workgroup_size) {
      let pair = unpack2x16float(embedding[row + i]);
      hidden[2u * i] = pair.x;
      hidden[2u * i + 1u] = pair.y;
    }
  }
  if (thread == 0u && moves_on == 1u) {
    let next = sequence[0] + 1u;
    sequence[0] = next;
    tokens[next] = index_of(best);
  }
}
