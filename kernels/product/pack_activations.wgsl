// Packs activations for the fused kernels: 16-bit block fixed point, see pack_activations.ts for planes and error.
//
// Bindings (H = half_blocks):
//   0 x       f32 [channels]
//   1 packed  vec4<u32> [10, H]
//
// Mapping: one thread a group of 16 channels. In a decode step the fused kernels do this themselves (product/parts/fill_values.wgsl).
override channels: u32 = 1;
override half_blocks: u32 = 2;
override workgroup_size: u32 = 64;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> packed: array<vec4<u32>>;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let group = id.x;
  if (group >= 4u * half_blocks) { return; }
  let half_block = group / 4u;
  var values: array<vec4<f32>, 4>;
  var largest = 0u;
  for (var j = 0u; j < 4u; j++) {
    let c = group * 16u + j;
    values[j] = vec4(activation(c), activation(c + 4u), activation(c + 8u), activation(c + 12u));
    largest = max(largest, largest_bits(values[j]));
  }
  var hi = vec4(0u);
  var lo = vec4(0u);
  var sum = 0.0;
  for (var j = 0u; j < 4u; j++) {
    let word = quantize(values[j], group_step(largest), unit_of(j));
    hi[j] = word.hi;
    lo[j] = word.lo;
    sum += word.sum;
  }
  packed[(group % 4u) * half_blocks + half_block] = hi;
  packed[(4u + group % 4u) * half_blocks + half_block] = lo;
  packed[8u * half_blocks + half_block][group % 4u] = bitcast<u32>(group_step512(largest));
  packed[9u * half_blocks + half_block][group % 4u] = bitcast<u32>(sum);
}

fn activation(channel: u32) -> f32 {
  return select(0.0, x[min(channel, channels - 1u)], channel < channels);
}
