// needs: token_range sum_workgroup
// Gradients of RMSNorm, y[t, i] = r x[t, i] weight[i] with r = 1 / sqrt(mean over j of x[t, j]^2 + epsilon):
//
//   x_gradient[t, i] += r (weight[i] dy[t, i] - r^2 x[t, i] * mean over j of weight[j] dy[t, j] x[t, j])
//   partials[p, i] = sum over the tokens t of part p of r dy[t, i] x[t, i], parts of the weight's gradient
//
// Bindings (T = range.tokens, P = parts of `part_tokens` tokens):
//   0 range       uniform, see tokens/parts/token_range.wgsl
//   1 x           f32 [T, hidden]
//   2 weight      f32 [hidden]
//   3 y_gradient  f32 [T, hidden]
//   4 x_gradient  f32 [T, hidden]
//   5 partials    f32 [P, hidden]
//
// Mapping: a workgroup of 256 threads a part, token after token; a thread has the same elements of all of them.
override hidden: u32 = 1;
override epsilon: f32 = 0.0;
override part_tokens: u32 = 1;

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> y_gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> x_gradient: array<f32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let start = workgroup.x * part_tokens;
  let end = min(start + part_tokens, range.tokens);
  for (var token = start; token < end; token++) {
    let first = token * hidden;
    var squares = 0.0;
    var products = 0.0;
    for (var i = thread; i < hidden; i += 256u) {
      squares = fma(x[first + i], x[first + i], squares);
      products = fma(weight[i] * y_gradient[first + i], x[first + i], products);
    }
    let factor = 1.0 / sqrt(sum_workgroup(squares, thread) / f32(hidden) + epsilon);
    let pull = factor * factor * sum_workgroup(products, thread) / f32(hidden);
    for (var i = thread; i < hidden; i += 256u) {
      let gradient = y_gradient[first + i];
      x_gradient[first + i] += factor * (weight[i] * gradient - pull * x[first + i]);
      let at = workgroup.x * hidden + i;
      partials[at] = select(partials[at], 0.0, token == start) + factor * gradient * x[first + i];
    }
  }
}
