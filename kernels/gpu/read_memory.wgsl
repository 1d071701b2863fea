// Reads a buffer once: the measure of read bandwidth that other kernels are held against.
//
// Bindings: source vec4<u32> [vectors]; sink u32 [workgroups], written only where all words xor to a value that
// random data practically never give, so that the reads can't be dropped.
// Each workgroup reads 8 strips of workgroup_size vectors, all in flight at once.
override vectors: u32 = 4096;
override workgroup_size: u32 = 256;

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<u32>;

const STRIPS = 8u;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let start = (workgroup.y * count.x + workgroup.x) * workgroup_size * STRIPS + thread;
  let a = strip(start) ^ strip(start + workgroup_size);
  let b = strip(start + 2u * workgroup_size) ^ strip(start + 3u * workgroup_size);
  let c = strip(start + 4u * workgroup_size) ^ strip(start + 5u * workgroup_size);
  let d = strip(start + 6u * workgroup_size) ^ strip(start + 7u * workgroup_size);
  let all = a ^ b ^ c ^ d;
  if ((all.x ^ all.y ^ all.z ^ all.w) == 0x9e3779b9u) { sink[0] = all.x; }
}

fn strip(at: u32) -> vec4<u32> {
  return source[min(at, vectors - 1u)];
}
