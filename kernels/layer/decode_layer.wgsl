// needs: relay relay_groups relay_input relay_attention fill_values layer_steps outliers
// Some transformer layers of a decode step in one dispatch, with weights that are packed (layer/parts/packed_steps.wgsl)
// or f16 (half_steps.wgsl). A layer is five stages, which hand their results from workgroup to workgroup
// (layer/parts/relay.wgsl) instead of waiting for the next dispatch:
//
//   qkv        q, k and v of the normed residual stream
//   attention  of the new token to parts of the sequence; its key and value go into the cache
//   o          adds the stream, multiplies by the weights of the next norm
//   gate+up    silu(gate) up
//   down       adds what came after o, multiplies by the weights of the next layer's norm
//
// What the next product multiplies is packed where it is made (layer/parts/relay_groups.wgsl): a workgroup makes whole
// groups of 16 rows, and nobody norms or packs what another has. The factor of a norm comes to the sums of rows, from
// the squares that each group brings along.
//
// Bindings (planes as in fused_gemv.wgsl, of the four matrices of a layer one after the other, layer by layer):
//   0 base  1 refine  2 meta_words  3 tile_scale  4 outlier_planes
//   5 relay        u32   control words, then q k v, partial and whole attention, the stream after o, silu(gate) up, the
//                        stream after the layer; packed but q k v, partial attention and perhaps some of silu(gate) up
//   6 hidden_in    f32 [hidden]                input of the model's first layer
//   7 hidden_out   f32 [hidden]                the residual stream, in the end the output of the last layer; only the
//                                              thread that writes an element reads it
//   8 layer_norms  f32 [2 layers + 1, hidden]  before q, k, v and before gate, up; before q, k, v of the layer after
//                                              them
//   9 rotations  10 keys  11 values  12 sequence: see decode_attention.wgsl; keys and values of one layer after the
//                                                 other, of the sequences of a layer one after the other
//   13 norms       f32 [layers, 2, D]              where has_norm
//   14 bias        f32 [layers, (heads + 2 K) D]   where has_bias
//   15 layer_info  u32 [3 + 24 layers]  first layer, number of layers, sequences in the cache; for each layer and
//                                       matrix its density (0 for none), the first vector of its refine words,
//                                       slot_start and slot_bits of its outliers, the first word of their planes and
//                                       outlier_residuals
//
// Mapping: every workgroup takes its share of the rows of each matrix as in fused_gemv.wgsl, and of the parts of the
// attention. There are as many workgroups as run side by side, one for each multiprocessor of a large GPU, so that all
// wait for each other without any being left out. The first words of the next weights are on their way while a
// workgroup waits for its input. Where rows of down are too long for workgroup memory, or that is faster, a workgroup
// takes all its rows' first columns, then their next, and adds the sums to what the stream has.
override team: u32 = 32;
override workgroup_size: u32 = 384; // a whole number of teams
override workgroups: u32 = 1; // as many as the dispatch has, so that shares are constants
override cell_count: u32 = 256; // of the matrix with the longest rows, or of a part of its columns
override part_columns: u32 = 0; // columns of down that are taken at once, 0 for all
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
override rest_at: u32 = 0; // of silu(gate) up, what is handed over unpacked
override stream_at: u32 = 0;
override inner_groups: u32 = 4; // of silu(gate) up, groups that are handed over packed
override stream_quarters: u32 = 4; // of the residual stream, largest share of a workgroup
override ends_early: u32 = 1; // subgroups without rows end their loops
override holds_back: u32 = 1; // all wait until a workgroup has handed its rows over
override short_tokens: u32 = 256; // up to so many tokens there are short_splits
override short_splits: u32 = 1;
override long_splits: u32 = 1;
override counted_workgroups: u32 = 1024; // so many only count how many of them run side by side
override residence_polls: u32 = 20000;
override most_polls: u32 = 400000; // looks at a word before a workgroup gives up: some tenths of a second

// A group of a vector, channel 4i + j at [i][j]; so its index is checked once for four channels.
alias Group16 = array<array<f32, 4>, 4>;

@group(0) @binding(0) var<storage, read> base: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> outlier_planes: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> hidden_in: array<Group16>;
@group(0) @binding(7) var<storage, read_write> hidden_out: array<Group16>;
@group(0) @binding(8) var<storage, read> layer_norms: array<Group16>;
@group(0) @binding(9) var<storage, read> rotations: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> keys: array<CacheVector>;
@group(0) @binding(11) var<storage, read_write> values: array<CacheVector>;
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
var<private> packed_rows: u32; // rows that are handed over packed, the first ones
var<private> packed_share: u32; // of a workgroup
var<private> rest_row: u32; // the others: first row of a workgroup, less packed_share
var<private> packed_groups: u32; // of the input
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

// Number of sequences in the cache, and index of the token's.
var<private> sequences: u32;
var<private> own_sequence: u32;

var<private> splits: u32;

// q of a head, then k and v of its key head.
var<workgroup> projections: array<vec4<f32>, 3 * head_size / 4>;

// Of a workgroup's rows of the residual stream, quarter by quarter: what is added to them, and the weights of the norm
// that comes next.
var<workgroup> residuals: array<vec4<f32>, stream_quarters>;
var<workgroup> next_weights: array<vec4<f32>, stream_quarters>;

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
  splits = select(long_splits, short_splits, position < short_tokens);
  ask_places(0u);
  let layers = layer_info[1];
  for (own_layer = 0u; own_layer < layers; own_layer++) {
    layer = layer_info[0] + own_layer;
    tag = tag_of(layer);
    for (var i = QKV; i <= DOWN; i++) {
      stage = i;
      if (stage == O) {
        attend_parts(workgroup.x, position, thread);
        if (splits > 1u) {
          reduce_splits(workgroup.x, thread);
          workgroupBarrier();
        }
      }
      begin_product(workgroup.x);
      let first_row = workgroup.x * packed_share;
      let has_rows = first_row < packed_rows || rest_row + packed_share < rows / rows_per_output();
      if (has_rows) { run_product(first_row, workgroup, thread); }
    }
  }
}

// Differs from those of the layers before and after, also from the model's last layer to its first.
fn tag_of(layer: u32) -> u32 {
  if (layer == all_layers) { return 1u; }
  return select(1u + layer % 2u, 3u, layer + 1u == all_layers && layer % 2u == 0u);
}

fn begin_product(workgroup: u32) {
  input_kind = RMS_NORM;
  output_kind = 0u;
  switch stage {
    case QKV: {
      set_shape((heads + 2u * key_value_heads) * head_size, hidden);
      share_rows(0u, workgroup);
      set_starts(0u, 0u, 0u);
      input_at = select(stream_at, OWN_INPUT, layer == 0u);
      packed_groups = select(packed_groups, 0u, layer == 0u);
    }
    case O: {
      set_shape(hidden, heads * head_size);
      share_rows(hidden, workgroup);
      set_starts(base_o, meta_o, scale_o);
      input_kind = 0u;
      input_at = mixed_at;
    }
    case GATE_UP: {
      output_kind = SILU_PRODUCT;
      set_shape(2u * intermediate, hidden);
      share_rows(16u * inner_groups, workgroup);
      set_starts(base_gate_up, meta_gate_up, scale_gate_up);
      input_at = middle_at;
    }
    default: {
      set_shape(hidden, intermediate);
      share_rows(hidden, workgroup);
      set_starts(base_down, meta_down, scale_down);
      input_kind = 0u;
      input_at = inner_at;
      packed_groups = inner_groups;
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

fn set_shape(matrix_rows: u32, matrix_channels: u32) {
  rows = matrix_rows;
  channels = matrix_channels;
  half_blocks = (matrix_channels + 63u) / 64u;
  row_columns = (half_blocks + team - 1u) / team;
  packed_groups = matrix_channels / 16u;
}

// Rows that are handed over packed go to workgroups in whole groups, others in steps.
fn share_rows(packed: u32, workgroup: u32) {
  let runs = rows_per_output();
  let rest_steps = (rows / runs - packed + STEP_ROWS - 1u) / STEP_ROWS;
  let rest_share = (rest_steps + workgroups - 1u) / workgroups * STEP_ROWS;
  packed_rows = packed;
  packed_share = (packed / 16u + workgroups - 1u) / workgroups * 16u;
  rest_row = packed + workgroup * rest_share - packed_share;
  workgroup_steps = (packed_share + rest_share) / STEP_ROWS * runs;
}

// Row i of a workgroup, of those of silu(gate) up for gate and up; past the end where there is none.
fn output_row(first_row: u32, i: u32) -> u32 {
  let is_packed = i < packed_share;
  let row = select(rest_row, first_row, is_packed) + i;
  return select(row, rows, is_packed && row >= packed_rows);
}

fn set_starts(base_at: u32, meta_at: u32, scale_at: u32) {
  base_start = own_layer * base_stride + base_at;
  meta_start = own_layer * meta_stride + meta_at;
  scale_start = own_layer * scale_stride + scale_at;
}

// Where all rows fit, the loop has one turn that a compiler sees.
fn run_product(first_row: u32, workgroup: vec3<u32>, thread: u32) {
  let end = select(1u, row_columns, part_columns > 0u);
  for (first_column = 0u; first_column < end; first_column += max(part_columns, 1u)) {
    columns = row_columns;
    if (part_columns > 0u) { columns = min(part_columns, row_columns - first_column); }
    row_teams = workgroup_size / team / columns;
    sum_columns(first_row, locate(thread, workgroup));
    if (part_columns == 0u || first_column + columns == row_columns) {
      write_packed(first_row, thread);
      write_rest(thread);
    } else {
      keep_sums(thread);
    }
    // Nothing is in danger without it: but who hands nothing over would ask for its next words, in the way of who does.
    // In small models that is worth more than it costs.
    if (holds_back != 0u) { workgroupBarrier(); }
  }
}

// The first of a subgroup's teams, which has the most turns. A compiler sees that it is the same for all lanes, so that
// a subgroup without rows can end its loop while others go on. Halves of a subgroup walk along: to end early costs them
// more than they would save.
fn leading_team(row_team: u32) -> u32 {
  if (ends_early == 0u) { return 0u; }
  return subgroupBroadcastFirst(row_team);
}

// Sums of the columns at hand, of all rows of the workgroup.
fn sum_columns(first_row: u32, lane: Lane) {
  var slots: Slots;
  if (has_outliers()) { slots = load_slots(first_row, 0u, lane.thread); }
  let first = first_step(first_row, lane);
  if (first_column == 0u && (stage == O || stage == DOWN)) { take_stream(first_row, lane.thread); }
  fill_cells(lane.thread);
  workgroupBarrier();
  if (has_outliers()) { sum_slots(slots, first_row, lane.thread); }
  multiply_rows(first, first_row, lane);
  if (has_layer_outliers != 0u && outlier_residuals != 0u) { sum_beyond(first_row, lane.thread); }
  finish_input(lane.thread);
  workgroupBarrier();
}

fn has_outliers() -> bool {
  return has_layer_outliers != 0u && slot_start != 0u;
}

// Keeps what is added to a workgroup's rows of the residual stream. They are the same after o and after down, so the
// stream itself stays where it is made, in hidden_out.
fn take_stream(first_row: u32, thread: u32) {
  let norm = 2u * own_layer + select(2u, 1u, stage == O);
  for (var i = thread; i < packed_share / 4u && first_row / 4u + i < hidden / 4u; i += workgroup_size) {
    let quarter = first_row / 4u + i;
    let group = quarter / 4u;
    let j = quarter % 4u;
    if (stage == O && layer == 0u) {
      residuals[i] = model_input(quarter);
    } else {
      residuals[i] = vec4(
        hidden_out[group][0][j],
        hidden_out[group][1][j],
        hidden_out[group][2][j],
        hidden_out[group][3][j],
      );
    }
    next_weights[i] = norm_weights(norm, quarter);
  }
}

// Adds the sums of some columns to what is added to a workgroup's rows.
fn keep_sums(thread: u32) {
  for (var i = thread; i < packed_share / 4u; i += workgroup_size) { residuals[i] += quarter_sums(i); }
}

// Rows that are handed over packed: four of a group by a thread. What all threads of a subgroup must do together stands
// outside of branches.
fn write_packed(first_row: u32, thread: u32) {
  for (var first = 0u; first < packed_share / 4u; first += workgroup_size) {
    let i = first + thread;
    let quarter = first_row / 4u + i;
    let exists = i < packed_share / 4u && quarter < packed_rows / 4u;
    var values: vec4<f32>;
    var squares = 0.0;
    if (exists) {
      values = quarter_sums(i);
      if (stage != GATE_UP) {
        values += residuals[i];
        put_stream(quarter, values);
        squares = dot(values, values);
        values *= next_weights[i];
      }
    }
    let at = select(select(middle_at, inner_at, stage == GATE_UP), stream_at, stage == DOWN);
    let own_tag = select(tag, tag_of(layer + 1u), stage == DOWN);
    hand_over_quarter(at, quarter, values, squares, own_tag, exists, thread);
  }
}

// Of the rows i + {0, 4, 8, 12} of a group of a workgroup.
fn quarter_sums(quarter: u32) -> vec4<f32> {
  let i = quarter / 4u * 16u + quarter % 4u;
  let sums = four_sums(i);
  if (stage != GATE_UP) { return sums; }
  let up = four_sums(i + workgroup_outputs());
  return silu_products(sums, up);
}

fn four_sums(i: u32) -> vec4<f32> {
  let parts = select(columns, columns + 1u, has_outliers());
  var sums = vec4(0.0);
  // Two at a time, since each turn waits for its loads.
  for (var part = 0u; part < parts; part += 2u) {
    sums += four_partials(part, i) + select(vec4(0.0), four_partials(min(part + 1u, parts - 1u), i), part + 1u < parts);
  }
  return sums * input_factor();
}

fn four_partials(part: u32, i: u32) -> vec4<f32> {
  let at = part * workgroup_steps * STEP_ROWS + i;
  return vec4(partial[at], partial[at + 4u], partial[at + 8u], partial[at + 12u]);
}

fn put_stream(quarter: u32, values: vec4<f32>) {
  let group = quarter / 4u;
  let j = quarter % 4u;
  hidden_out[group][0][j] = values.x;
  hidden_out[group][1][j] = values.y;
  hidden_out[group][2][j] = values.z;
  hidden_out[group][3][j] = values.w;
}

// The other rows, q, k and v and the last ones of silu(gate) up.
fn write_rest(thread: u32) {
  let outputs = workgroup_outputs();
  for (var i = packed_share + thread; i < outputs; i += workgroup_size) {
    let row = rest_row + i;
    var sum = row_sum(i);
    if (stage == GATE_UP) { sum = silu_product(sum, row_sum(i + outputs)); }
    if (row < rows / rows_per_output()) {
      relay_put(select(qkv_at + row, rest_at + relay_place(row - packed_rows), stage == GATE_UP), sum);
    }
  }
}
