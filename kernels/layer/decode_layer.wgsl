// needs: relay relay_input fill_values reduce_splits attend queries steps outliers
// Some transformer layers of a decode step in one dispatch, with packed weights. A layer is five stages, which hand
// their results from workgroup to workgroup (layer/parts/relay.wgsl) instead of waiting for the next dispatch:
//
//   qkv        norm of the residual stream, q, k and v
//   attention  of the new token to parts of the sequence; its key and value go into the cache
//   o          adds the stream
//   gate+up    norm, silu(gate) up
//   down       adds what came after o
//
// Bindings (planes as in fused_gemv.wgsl, of the four matrices of a layer one after the other, layer by layer):
//   0 base  1 refine  2 meta_words  3 tile_scale  4 outlier_planes
//   5 relay        u32   control words, then q k v, partial and whole attention, the stream after o, silu(gate) up, the
//                        stream after the layer
//   6 hidden_in    f32 [hidden]              input of the model's first layer
//   7 hidden_out   f32 [hidden]              output of its last layer
//   8 layer_norms  f32 [layers, 2, hidden]   before q, k, v and before gate, up
//   9 rotations  10 keys  11 values  12 sequence: see decode_attention.wgsl; keys and values of one layer after the other,
//                                                 of the sequences of a layer one after the other
//   13 norms       f32 [layers, 2, D]              where has_norm
//   14 bias        f32 [layers, (heads + 2 K) D]   where has_bias
//   15 layer_info  u32 [3 + 24 layers]  first layer, number of layers, sequences in the cache; for each layer and matrix
//                                       its density (0 for none), the first vector of its refine words, slot_start and
//                                       slot_bits of its outliers, the first word of their planes and outlier_residuals
//
// Mapping: every workgroup takes its share of the rows of each matrix as in fused_gemv.wgsl, and of the parts of the
// attention. There are as many workgroups as run side by side, one for each multiprocessor of a large GPU, so that all
// wait for each other without any being left out. The first words of the next weights are on their way while a
// workgroup waits for its input. Where rows of down are too long for workgroup memory, a workgroup takes all its rows'
// first columns, then their next; a thread keeps the sum of the one row that it writes.
override team: u32 = 32;
override workgroup_size: u32 = 384; // a whole number of teams
override cell_count: u32 = 256; // of the matrix with the longest rows, or of a part of its columns
override part_columns: u32 = 0; // most columns that there are cells for, where down has more; else 0
override partial_count: u32 = 32; // of the largest share of a workgroup
override ends_in_half: u32 = 0; // 1 where a row of a matrix may end in half a block
override hidden: u32 = 64;
override intermediate: u32 = 64;
override epsilon: f32 = 0.00001;
override has_layer_densities: u32 = 0; // else one group in 8 is refined in all matrices
override has_layer_outliers: u32 = 0;
override all_layers: u32 = 2; // of the model
override base_stride: u32 = 0; // vectors of a layer in each plane
override meta_stride: u32 = 0;
override scale_stride: u32 = 0;
override base_o: u32 = 0; // first vector of each matrix of a layer but the first in each plane
override base_gate_up: u32 = 0;
override base_down: u32 = 0;
override meta_o: u32 = 0;
override meta_gate_up: u32 = 0;
override meta_down: u32 = 0;
override scale_o: u32 = 0;
override scale_gate_up: u32 = 0;
override scale_down: u32 = 0;
override qkv_at: u32 = 0; // first words of what is handed over
override sums_at: u32 = 0;
override sums_stride: u32 = 0; // from split to split
override pairs_at: u32 = 0;
override mixed_at: u32 = 0;
override middle_at: u32 = 0;
override inner_at: u32 = 0;
override hidden_at: u32 = 0;
override short_tokens: u32 = 256; // up to so many tokens there are short_splits, up to middle_tokens middle_splits
override middle_tokens: u32 = 1024;
override short_splits: u32 = 1;
override middle_splits: u32 = 1;
override long_splits: u32 = 1;
override counted_workgroups: u32 = 1024; // so many only count how many of them run side by side
override residence_polls: u32 = 20000;
override most_polls: u32 = 400000; // looks at a word before a workgroup gives up: some tenths of a second

// A group of a vector, channel 4i + j at [i][j]; so its index is checked once for four channels.
alias Group16 = array<array<f32, 4>, 4>;

@group(0) @binding(0) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> refine: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> meta_words: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tile_scale: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<u32>;
@group(0) @binding(6) var<storage, read> hidden_in: array<Group16>;
@group(0) @binding(7) var<storage, read_write> hidden_out: array<f32>;
@group(0) @binding(8) var<storage, read> layer_norms: array<Group16>;
@group(0) @binding(9) var<storage, read> rotations: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> keys: array<vec4<u32>>;
@group(0) @binding(11) var<storage, read_write> values: array<vec4<u32>>;
@group(0) @binding(12) var<storage, read> sequence: array<u32>;
@group(0) @binding(13) var<storage, read> norms: array<vec4<f32>>;
@group(0) @binding(14) var<storage, read> bias: array<f32>;
@group(0) @binding(15) var<storage, read> layer_info: array<u32>;

// Stages with a product.
const QKV = 0u;
const O = 1u;
const GATE_UP = 2u;
const DOWN = 3u;

// Value of `input_at` for the input of the first layer.
const OWN_INPUT = 0u;

// The layer at hand: in the model, and in this dispatch.
var<private> layer: u32;
var<private> own_layer: u32;

// The product at hand: what other kernels have as constants.
var<private> stage: u32;
var<private> refine_every: u32;
var<private> rows: u32;
var<private> channels: u32;
var<private> half_blocks: u32;
var<private> row_columns: u32;
var<private> first_column: u32; // of the part at hand
var<private> columns: u32;
var<private> row_teams: u32;
var<private> workgroup_steps: u32;
var<private> base_start: u32;
var<private> refine_start: u32;
var<private> meta_start: u32;
var<private> scale_start: u32;
var<private> slot_start: u32;
var<private> slot_bits: u32;
var<private> outlier_start: u32;
var<private> outlier_residuals: u32;
var<private> input_kind: u32;
var<private> input_at: u32;
var<private> output_kind: u32;

// Density and first refine vector of the product after it, slot_start and slot_bits: asked for a product ahead.
var<private> next_refined: vec2<u32>;
var<private> next_slots: vec2<u32>;

// Of the row that a thread writes next.
var<private> residual: f32;

// Number of sequences in the cache, and index of the token's.
var<private> sequences: u32;
var<private> own_sequence: u32;

var<private> splits: u32;
var<private> first_query: u32;

// q of a head, then k and v of its key head.
var<workgroup> projections: array<vec4<f32>, (QUERIES + 2) * head_size / 4>;

@compute @workgroup_size(workgroup_size)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  if (count.x == counted_workgroups) {
    count_residents(residence_polls, thread);
    return;
  }
  gave_up = atomicLoad(&relay[0][0][STATUS]);
  let position = sequence[0];
  sequences = layer_info[2];
  own_sequence = sequence[1];
  splits = select(long_splits, select(middle_splits, short_splits, position < short_tokens), position < middle_tokens);
  ask_places(0u);
  let layers = layer_info[1];
  for (own_layer = 0u; own_layer < layers; own_layer++) {
    layer = layer_info[0] + own_layer;
    tag = tag_of(layer);
    for (var i = QKV; i <= DOWN; i++) {
      stage = i;
      if (stage == O) {
        attend_splits(workgroup.x, count.x, position, thread);
        if (splits > 1u) { reduce_splits(workgroup.x, count.x, thread); }
      }
      begin_product(count.x);
      let first_row = workgroup.x * workgroup_outputs();
      if (first_row < rows / rows_per_output()) { run_product(first_row, workgroup, thread); }
    }
  }
}

// Differs from those of the layers before and after, also from the model's last layer to its first.
fn tag_of(layer: u32) -> u32 {
  if (layer == all_layers) { return 1u; }
  return select(1u + layer % 2u, 3u, layer + 1u == all_layers && layer % 2u == 0u);
}

fn begin_product(workgroups: u32) {
  input_kind = RMS_NORM;
  output_kind = 0u;
  switch stage {
    case QKV: {
      set_shape((heads + 2u * key_value_heads) * head_size, hidden, workgroups);
      set_starts(0u, 0u, 0u);
      input_at = select(hidden_at, OWN_INPUT, layer == 0u);
    }
    case O: {
      set_shape(hidden, heads * head_size, workgroups);
      set_starts(base_o, meta_o, scale_o);
      input_kind = 0u;
      input_at = mixed_at;
    }
    case GATE_UP: {
      output_kind = SILU_PRODUCT;
      set_shape(2u * intermediate, hidden, workgroups);
      set_starts(base_gate_up, meta_gate_up, scale_gate_up);
      input_at = middle_at;
    }
    default: {
      set_shape(hidden, intermediate, workgroups);
      set_starts(base_down, meta_down, scale_down);
      input_kind = 0u;
      input_at = inner_at;
    }
  }
  let product = 4u * own_layer + stage;
  refine_every = 8u;
  if (has_layer_densities != 0u) { refine_every = next_refined.x; }
  refine_start = next_refined.y;
  slot_start = next_slots.x;
  slot_bits = next_slots.y;
  ask_places(product + 1u);
  if (has_layer_outliers != 0u) {
    outlier_start = layer_info[7u + 6u * product];
    outlier_residuals = layer_info[8u + 6u * product];
  }
}

fn ask_places(product: u32) {
  let at = 3u + 6u * product;
  next_refined = vec2(layer_info[at], layer_info[at + 1u]);
  if (has_layer_outliers != 0u) { next_slots = vec2(layer_info[at + 2u], layer_info[at + 3u]); }
}

fn set_shape(matrix_rows: u32, matrix_channels: u32, workgroups: u32) {
  rows = matrix_rows;
  channels = matrix_channels;
  half_blocks = (matrix_channels + 63u) / 64u;
  row_columns = (half_blocks + team - 1u) / team;
  let runs = rows_per_output();
  let run_steps = (matrix_rows / runs + STEP_ROWS - 1u) / STEP_ROWS;
  workgroup_steps = (run_steps + workgroups - 1u) / workgroups * runs;
}

fn set_starts(base_at: u32, meta_at: u32, scale_at: u32) {
  base_start = own_layer * base_stride + base_at;
  meta_start = own_layer * meta_stride + meta_at;
  scale_start = own_layer * scale_stride + scale_at;
}

// Where all rows fit, the loop has one turn that a compiler sees.
fn run_product(first_row: u32, workgroup: vec3<u32>, thread: u32) {
  let vector = input_at;
  let end = select(1u, row_columns, part_columns > 0u);
  for (first_column = 0u; first_column < end; first_column += max(part_columns, 1u)) {
    columns = row_columns;
    if (part_columns > 0u) {
      columns = min(part_columns, row_columns - first_column);
      input_at = vector + first_column * team * 64u;
    }
    row_teams = workgroup_size / team / columns;
    sum_columns(first_row, locate(thread, workgroup));
    if (part_columns == 0u || first_column + columns == row_columns) {
      write_rows(first_row, thread, 0u);
    } else if (thread < workgroup_outputs()) {
      residual += row_sum(thread);
    }
    workgroupBarrier();
  }
}

// Sums of the columns at hand, of all rows of the workgroup.
fn sum_columns(first_row: u32, lane: Lane) {
  var slots: vec4<u32>;
  if (has_outliers()) { slots = load_slots(first_row, 0u, lane.thread); }
  let first = first_step(first_row, lane);
  fill_cells(lane.thread);
  workgroupBarrier();
  if (first_column == 0u) { residual = residual_of(first_row + lane.thread); }
  if (has_outliers()) { sum_slots(slots, first_row, lane.thread); }
  multiply_rows(first, first_row, lane);
  if (has_layer_outliers != 0u && outlier_residuals != 0u) { sum_beyond(first_row, lane.thread); }
  finish_input(lane.thread);
  workgroupBarrier();
}

fn has_outliers() -> bool {
  return has_layer_outliers != 0u && slot_start != 0u;
}

fn write_row(token: u32, row: u32, sum: f32) {
  let value = residual + sum;
  residual = residual_of(row + workgroup_size);
  switch stage {
    case QKV: { relay_put(qkv_at + row, value); }
    case O: { relay_put(middle_at + relay_place(row), value); }
    case GATE_UP: { relay_put(inner_at + relay_place(row), value); }
    default: {
      relay_put_tagged(hidden_at + relay_place(row), value, tag_of(layer + 1u));
      if (layer + 1u == all_layers) { hidden_out[row] = value; }
    }
  }
}

// What is added to a row. After o every workgroup has rows of the residual stream that are its own after down as well.
fn residual_of(row: u32) -> f32 {
  if (row < rows) {
    if (stage == O && layer == 0u) { return hidden_in[row / 16u][row / 4u % 4u][row % 4u]; }
    if (stage == O) { return relay_await(hidden_at + relay_place(row)); }
    if (stage == DOWN) { return relay_await(middle_at + relay_place(row)); }
  }
  return 0.0;
}

// Parts of the attention: those of all heads and all splits are shared out among the workgroups. Heads that share keys
// are taken one by one: arithmetic takes longer than reading keys again, which come from the cache.
fn attend_splits(workgroup: u32, workgroups: u32, position: u32, thread: u32) {
  let groups = key_value_heads * ((heads / key_value_heads + QUERIES - 1u) / QUERIES);
  for (var part = workgroup; part < groups * splits; part += workgroups) {
    attend_split(part % groups, part / groups, position, thread);
    workgroupBarrier();
  }
}

fn cache_head_of(key_head: u32) -> u32 {
  return (own_layer * sequences + own_sequence) * key_value_heads + key_head;
}

fn norms_start() -> u32 {
  return own_layer * head_size / 2u;
}

fn await_projections(first_head: u32, key_head: u32, has_new: bool, thread: u32) {
  first_query = first_head;
  let count = select(QUERIES, QUERIES + 2u, has_new) * head_size;
  for (var i = thread; i < count; i += workgroup_size) {
    let slot = i / head_size;
    var head = min(first_head + slot, heads - 1u);
    if (slot >= QUERIES) { head = heads + (slot - QUERIES) * key_value_heads + key_head; }
    let channel = head * head_size + i % head_size;
    var value = relay_await(qkv_at + channel);
    if (has_bias == 1u) { value += bias[own_layer * (heads + 2u * key_value_heads) * head_size + channel]; }
    projections[i / 4u][i % 4u] = value;
  }
  workgroupBarrier();
}

// Four channels of a head of q, k or v, with their bias.
fn projected(head: u32, channel: u32) -> vec4<f32> {
  var slot = head - first_query;
  if (head >= heads) { slot = QUERIES + (head - heads) / key_value_heads; }
  return projections[(slot * head_size + channel) / 4u];
}

// Sums while they are merged, in cells.
fn put_merged_sum(i: u32, sum: f32) {
  cell_hi[i / 4u][i % 4u] = bitcast<u32>(sum);
}

fn merged_sum(i: u32) -> f32 {
  return bitcast<f32>(cell_hi[i / 4u][i % 4u]);
}

fn write_sum(split: u32, channel: u32, sum: f32, total: f32) {
  let place = relay_place(channel);
  if (splits == 1u) {
    relay_put(mixed_at + place, select(sum / total, 0.0, total == 0.0));
  } else {
    relay_put(sums_at + split * sums_stride + place, sum);
  }
}

fn write_pair(split: u32, head: u32, largest: f32, total: f32) {
  let at = pairs_at + 2u * (split * heads + head);
  relay_put(at, largest);
  relay_put(at + 1u, total);
}

// Every workgroup combines the splits of some quarters of groups.
fn reduce_splits(workgroup: u32, workgroups: u32, thread: u32) {
  let quarters = heads * head_size / 4u;
  let share = (quarters + workgroups - 1u) / workgroups;
  for (var i = thread; i < share; i += workgroup_size) {
    let quarter = workgroup * share + i;
    if (quarter < quarters) {
      let at = mixed_at + quarter_place(quarter);
      let mixed = combine_quarter(quarter);
      relay_put(at, mixed.x);
      relay_put(at + 32u, mixed.y);
      relay_put(at + 64u, mixed.z);
      relay_put(at + 96u, mixed.w);
    }
  }
}

// Words of a quarter of four splits.
struct FourSplits {
  largest: vec4<u32>,
  total: vec4<u32>,
  sums0: vec4<u32>,
  sums1: vec4<u32>,
  sums2: vec4<u32>,
  sums3: vec4<u32>,
}

// Four splits at a time; one past the last is the last again.
fn combine_quarter(quarter: u32) -> vec4<f32> {
  var combined = nothing_combined();
  for (var first = 0u; first < splits; first += 4u) {
    let split = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(splits - 1u));
    var words = load_splits(split, quarter);
    for (var polls = 0u; gave_up == 0u && are_stale(words); polls++) {
      words = load_splits(split, quarter);
      if (is_in_vain(polls)) { give_up(); }
    }
    let sums = mat4x4(
      values_of(words.sums0),
      values_of(words.sums1),
      values_of(words.sums2),
      values_of(words.sums3),
    );
    let exists = vec4(first) + vec4(0u, 1u, 2u, 3u) < vec4(splits);
    combined = combine(combined, values_of(words.largest), values_of(words.total), sums, exists);
  }
  if (gave_up != 0u) { return vec4(not_a_number()); }
  return attention_of(combined);
}

fn load_splits(split: vec4<u32>, quarter: u32) -> FourSplits {
  let head = quarter / 4u * 16u / head_size;
  let pair = pairs_at + 2u * (split * heads + head);
  return FourSplits(
    relay_four(pair),
    relay_four(pair + 1u),
    relay_quarter(sums_at + split.x * sums_stride, quarter),
    relay_quarter(sums_at + split.y * sums_stride, quarter),
    relay_quarter(sums_at + split.z * sums_stride, quarter),
    relay_quarter(sums_at + split.w * sums_stride, quarter),
  );
}

fn are_stale(words: FourSplits) -> bool {
  let t = vec4(tag);
  let changed = (words.largest ^ t) | (words.total ^ t) | (words.sums0 ^ t) | (words.sums1 ^ t) | (words.sums2 ^ t) |
    (words.sums3 ^ t);
  return ((changed.x | changed.y | changed.z | changed.w) & TAG_MASK) != 0u;
}
