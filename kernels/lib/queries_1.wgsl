// One query a workgroup: each key head serves one query head.
alias Queries = f32;
const QUERIES = 1u;

fn exchange_queries(value: Queries, thread: u32, distance: u32) -> Queries {
  return exchange(value, thread, distance);
}

fn query_at(first_head: u32, channel: u32) -> Queries {
  return rotated(first_head, channel, 0u);
}

fn raw_query_at(first_head: u32, channel: u32) -> Queries {
  return projected(first_head * head_size + channel);
}

fn query_of(value: Queries, i: u32) -> f32 {
  return value;
}
