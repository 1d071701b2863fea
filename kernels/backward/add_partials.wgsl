// Adds partial sums to what is there: sums[i] += sum over p of partials[p, i].
//
// Bindings (P = parts):
//   0 partials  f32 [P, width]
//   1 sums      f32 [width]
//
// Mapping: a thread an element, part after part, so that neighbours read neighbouring words.
override parts: u32 = 1;
override width: u32 = 1;

@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= width) { return; }
  var sum = 0.0;
  for (var p = 0u; p < parts; p++) { sum += partials[p * width + id.x]; }
  sums[id.x] += sum;
}
