// The matrix that an outer update adds to, and its edges.
//
// Bindings (counts, and the element at which each matrix begins, are in `update`; all but k are multiples of 4):
//   0 update  uniform
//   3 c       vec4<f32> rows of c_stride / 4
//
// From the kernel: a and b, bindings 1 and 2.
//
// With `triangle` nothing is written on the other side of the diagonal.
override c_stride: u32 = 4;
override factor: f32 = 1.0;
override triangle: u32 = 0; // 1: the upper triangle, 2: the lower, of the matrix whose rows from c_row on are c

struct Update {
  m: u32,
  n: u32,
  k: u32,
  a_first: u32,
  b_first: u32,
  c_first: u32,
  c_row: u32,
}

@group(0) @binding(0) var<uniform> update: Update;
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>;

// Adds to four columns of c.
fn add_four(m: u32, n: u32, sums: vec4<f32>) {
  add_to_four(m, n, four_at(m, n), sums);
}

// Anything past the edges, where nothing is added.
fn four_at(m: u32, n: u32) -> vec4<f32> {
  return c[place_of(min(m, update.m - 1u), min(n, update.n - 4u))];
}

fn add_to_four(m: u32, n: u32, before: vec4<f32>, sums: vec4<f32>) {
  if (m >= update.m || n >= update.n) { return; }
  c[place_of(m, n)] = select(before, before + factor * sums, is_wanted(update.c_row + m, n));
}

fn place_of(m: u32, n: u32) -> u32 {
  return (update.c_first + m * c_stride + n) / 4u;
}

// Which of four columns from n on are on the wanted side of the diagonal.
fn is_wanted(row: u32, n: u32) -> vec4<bool> {
  let columns = vec4(n, n + 1u, n + 2u, n + 3u);
  if (triangle == 1u) { return columns >= vec4(row); }
  if (triangle == 2u) { return columns <= vec4(row); }
  return vec4(true);
}

// Whether so many rows and columns lie wholly on the other side.
fn is_unwanted(m: u32, n: u32, rows: u32, columns: u32) -> bool {
  if (triangle == 1u) { return update.c_row + m >= n + columns; }
  return triangle == 2u && n >= update.c_row + m + rows;
}
