// A step of Adam (arXiv 1412.6980) on some values, whose gradients are cleared for the next:
//
//   m = 0.9 m + 0.1 g;  v = 0.95 v + 0.05 g^2;  values -= rate * m / (sqrt(v * correction) + 1e-8)
//
// Bindings:
//   0 step      uniform: rate = learning rate / (1 - 0.9^t), correction = 1 / (1 - 0.95^t), t the step's number from 1
//   1 gradient  f32 [count]
//   2 moments   vec2<f32> [count]: m and v
//   3 values    f32 [count]
//
// Mapping: a thread a value; workgroups spread over x and y.
override count: u32 = 1;

struct Step {
  rate: f32,
  correction: f32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> moments: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
  let at = id.y * workgroups.x * 256u + id.x;
  if (at >= count) { return; }
  let g = gradient[at];
  let moment = vec2(0.9, 0.95) * moments[at] + vec2(0.1, 0.05) * vec2(g, g * g);
  values[at] -= step.rate * moment.x / (sqrt(moment.y * step.correction) + 1e-8);
  moments[at] = moment;
  gradient[at] = 0.0;
}
