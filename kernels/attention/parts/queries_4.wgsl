// needs: exchange
// is: queries
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

// Four channels of the queries, rotated. Heads past the last one repeat it; nobody reads them.
fn queries_at(first_head: u32, channel: u32, angles: Angles) -> Four {
  let channels = transpose(mat4x4(
    rotated(first_head, channel, angles, 0u),
    rotated(min(first_head + 1u, heads - 1u), channel, angles, 0u),
    rotated(min(first_head + 2u, heads - 1u), channel, angles, 0u),
    rotated(min(first_head + 3u, heads - 1u), channel, angles, 0u),
  ));
  return Four(channels[0], channels[1], channels[2], channels[3]);
}

// Sums of the squares of four channels, before any norm.
fn squares_at(first_head: u32, channel: u32) -> Queries {
  let query0 = projected(first_head, channel);
  let query1 = projected(min(first_head + 1u, heads - 1u), channel);
  let query2 = projected(min(first_head + 2u, heads - 1u), channel);
  let query3 = projected(min(first_head + 3u, heads - 1u), channel);
  return vec4(dot(query0, query0), dot(query1, query1), dot(query2, query2), dot(query3, query3));
}

fn query_of(value: Queries, i: u32) -> f32 {
  return value[i];
}
