// Up to four queries a workgroup, one in each component, so that query heads that share keys read them once.
alias Queries = vec4<f32>;
const QUERIES = 4u;

fn exchange_queries(value: Queries, thread: u32, distance: u32) -> Queries {
  return vec4(
    exchange(value.x, thread, distance),
    exchange(value.y, thread, distance),
    exchange(value.z, thread, distance),
    exchange(value.w, thread, distance),
  );
}

// Heads past the last one repeat it; nobody reads them.
fn query_at(first_head: u32, channel: u32) -> Queries {
  return vec4(
    rotated(first_head, channel, 0u),
    rotated(min(first_head + 1u, heads - 1u), channel, 0u),
    rotated(min(first_head + 2u, heads - 1u), channel, 0u),
    rotated(min(first_head + 3u, heads - 1u), channel, 0u),
  );
}

fn raw_query_at(first_head: u32, channel: u32) -> Queries {
  return vec4(
    projected(first_head * head_size + channel),
    projected(min(first_head + 1u, heads - 1u) * head_size + channel),
    projected(min(first_head + 2u, heads - 1u) * head_size + channel),
    projected(min(first_head + 3u, heads - 1u) * head_size + channel),
  );
}

fn query_of(value: Queries, i: u32) -> f32 {
  return value[i];
}
