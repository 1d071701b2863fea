// needs: exchange
// is: queries
// One query a workgroup.
alias Queries = f32;
const QUERIES = 1u;

fn exchange_queries(value: Queries, thread: u32, distance: u32) -> Queries {
  return exchange(value, thread, distance);
}

// Four channels of the query, rotated.
fn queries_at(first_head: u32, channel: u32, angles: Angles) -> Four {
  let query = rotated(first_head, channel, angles, 0u);
  return Four(query.x, query.y, query.z, query.w);
}

// Sum of the squares of four channels, before any norm.
fn squares_at(first_head: u32, channel: u32) -> Queries {
  let query = projected(first_head, channel);
  return dot(query, query);
}

fn query_of(value: Queries, i: u32) -> f32 {
  return value;
}
