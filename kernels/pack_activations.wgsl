// Packs activations for the fused kernels: 16-bit block fixed point, see pack_activations.ts for planes and error.
//
// Bindings (H = half_blocks):
//   0 x       f32 [channels]
//   1 packed  vec4<u32> [10, H]
//
// Mapping: one thread a group of 16 channels. In a decode step the kernel that makes x does this itself.
override channels: u32 = 1;
override half_blocks: u32 = 2;
override workgroup_size: u32 = 64;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> packed: array<vec4<u32>>;

const LARGEST = 32512.0;

@compute @workgroup_size(workgroup_size)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let group = id.x;
  if (group >= 4u * half_blocks) { return; }
  let half_block = group / 4u;
  let first = group * 16u;
  var values: array<vec4<f32>, 4>;
  var largest = 0.0;
  var is_finite = true;
  for (var i = 0u; i < 4u; i++) {
    values[i] = vec4(activation(first + 4u * i), activation(first + 4u * i + 1u), activation(first + 4u * i + 2u), activation(first + 4u * i + 3u));
    let size = abs(values[i]);
    largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
    // By its bits: compilers may assume that no float is infinite or not a number.
    is_finite = is_finite && all((bitcast<vec4<u32>>(values[i]) & vec4(0x7f800000u)) != vec4(0x7f800000u));
  }
  let step = largest / LARGEST;
  let units = vec4(1.0, 4.0, 1.0, 4.0);
  var hi = vec4(0u);
  var lo = vec4(0u);
  var sum = 0.0;
  for (var i = 0u; i < 4u; i++) {
    // The limit holds where division rounded the wrong way; a step of 0 gives 0.
    let limit = vec4(LARGEST) / units;
    let quotient = select(vec4(0.0), values[i] / (vec4(step) * units), step > 0.0 && is_finite);
    let whole = clamp(round(quotient), -limit, limit);
    let high = round(whole / 255.0);
    let low = whole - 255.0 * high;
    hi |= (vec4<u32>(vec4<i32>(high)) & vec4(0xffu)) << vec4(8u * i);
    lo |= (vec4<u32>(vec4<i32>(low)) & vec4(0xffu)) << vec4(8u * i);
    sum += dot(whole, units);
  }
  packed[(group % 4u) * half_blocks + half_block] = hi;
  packed[(4u + group % 4u) * half_blocks + half_block] = lo;
  packed[8u * half_blocks + half_block][group % 4u] = select(0x7fc00000u, bitcast<u32>(128.0 * step), is_finite);
  packed[9u * half_blocks + half_block][group % 4u] = bitcast<u32>(sum);
}

fn activation(channel: u32) -> f32 {
  return select(0.0, x[min(channel, channels - 1u)], channel < channels);
}
