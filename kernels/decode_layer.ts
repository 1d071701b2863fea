/**
 * Launcher of whole transformer layers of a decode step, several in one dispatch.
 *
 * @module
 */
import { attentionGroups, type DecodeAttentionBuffers, queriesOf } from "./decode_attention.ts";
import { LANE_GROUPS, PACKED_ROWS_CODE, STEP_LOOP_CODE } from "./fused_gemv.ts";
import { allOrNone, type BufferScope } from "./buffer_scope.ts";
import { IS_DENO } from "./dialect.ts";
import type { Dispatch, Gpu, Kernel } from "./gpu.ts";
import type { AttentionShape } from "./key_value_cache.ts";
import { type PackedMatrix, type PackedSlab, planesOf, STEP_ROWS } from "./packed_matrix.ts";
import type { Plane } from "./plane.ts";
import { chooseTeam, type Team } from "./team.ts";
import kernelCode from "./decode_layer.wgsl" with { type: "text" };
import attendCode from "./lib/attend.wgsl" with { type: "text" };
import combineSplitsCode from "./lib/combine_splits.wgsl" with { type: "text" };
import fillValuesCode from "./lib/fill_values.wgsl" with { type: "text" };
import mergeOneCode from "./lib/merge_cells_1.wgsl" with { type: "text" };
import mergeFourCode from "./lib/merge_cells_4.wgsl" with { type: "text" };
import oneQueryCode from "./lib/queries_1.wgsl" with { type: "text" };
import fourQueriesCode from "./lib/queries_4.wgsl" with { type: "text" };
import quantizeCode from "./lib/quantize.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };
import relayCode from "./lib/relay.wgsl" with { type: "text" };
import relayInputCode from "./lib/relay_input.wgsl" with { type: "text" };

/** Sizes that all layers of a model have in common. */
export interface LayerShape {
  /** Elements of the residual stream. */
  readonly hidden: number;
  /** Rows of gate, and of up. */
  readonly intermediate: number;
  /** Added under the roots of the layer's norms. */
  readonly normEpsilon: number;
  /** Heads of its attention. */
  readonly attention: AttentionShape;
}

/** The packed matrices of a layer, whose planes lie one after the other in shared buffers, see {@linkcode sharePlanes}. */
export interface LayerMatrices {
  /** Rows of q, k and v. */
  readonly qkv: PackedMatrix;
  /** Attention's output layer. */
  readonly o: PackedMatrix;
  /** Rows of gate, then of up. */
  readonly gateUp: PackedMatrix;
  /** The MLP's output layer. */
  readonly down: PackedMatrix;
}

/** One layer of a decode step. */
export interface DecodeLayer extends Pick<DecodeAttentionBuffers, "cache" | "bias" | "headNorm"> {
  /** Its matrices. */
  readonly matrices: LayerMatrices;
  /** f32 [hidden]: weight of the norm before q, k and v. */
  readonly attentionNorm: GPUBuffer;
  /** f32 [hidden]: weight of the norm before gate and up. */
  readonly mlpNorm: GPUBuffer;
}

/** What the layers of a decode step have in common. */
export interface LayerBuffers extends Pick<DecodeAttentionBuffers, "rotations" | "sequence"> {
  /** f32 [hidden]: input of the first layer. */
  readonly input: GPUBuffer;
  /** f32 [hidden]: output of the last layer; another buffer than the input. */
  readonly output: GPUBuffer;
}

/** What makes the dispatches of a decode step's layers. */
export interface LayerDispatches {
  /** All layers in order, some to a dispatch; they serve every position. */
  readonly dispatches: readonly Dispatch[];
  /** u32: what workgroups hand over. Where its first word is not 0, one of them waited for another in vain. */
  readonly relay: GPUBuffer;
  /** Frees the buffers made for them. */
  destroy(): void;
}

/** Workgroups of a large GPU, for which memory is planned first. */
const USUAL_WORKGROUPS = 132;
/** Workgroups started to count how many run side by side; layers run with fewer. */
const COUNTED_WORKGROUPS = 1024;
/** Mesa's software adapter ends all loops of a shader after 65,535 turns, so there none may wait for another. */
const SOFTWARE_WORKGROUPS = 1;
/** Control words of the relay. */
const CONTROL_WORDS = 256;
const RESIDENT_WORD = 2;
/** Vectors of the relay are padded to so many words. */
const VECTOR_WORDS = 128;
const STORAGE_BUFFERS = 16;
/** Planes of a matrix that have the same size in each layer: all but outliers. */
const PLANES_ALIKE = 4;
/** Workgroup memory beside what is planned: a norm's squares and factor, attention's totals. */
const FIXED_BYTES = 1024;

/** The whole shader. */
export function decodeLayerCode(team: Team, queries: 1 | 4): string {
  const queryCode = queries === 1 ? [oneQueryCode, mergeOneCode] : [fourQueriesCode, mergeFourCode];
  const inputCode = [relayCode, relayInputCode, fillValuesCode, combineSplitsCode, quantizeCode];
  const rowCode = [STEP_LOOP_CODE, ...PACKED_ROWS_CODE, reduceCode, team.exchangeCode];
  return [kernelCode, ...inputCode, attendCode, ...queryCode, ...rowCode].join("\n");
}

/**
 * Dispatches that take a token through all layers of a model. Consecutive layers that share the buffers of their planes
 * and of their caches go into one dispatch. They need subgroups, and as many workgroups as run side by side on this
 * device, which is found out by running some. They are for Deno: browsers offer fewer storage buffers, and don't take the
 * kernel's sizes, which are variables, for uniform.
 *
 * @param layers all of the same shape
 * @returns nothing where the device or the layers don't suit the kernel; the kernels for single operations then do
 */
export async function decodeLayers(
  gpu: Gpu,
  shape: LayerShape,
  layers: readonly DecodeLayer[],
  buffers: LayerBuffers,
): Promise<LayerDispatches | undefined> {
  const runs = shareRuns(layers);
  if (!suits(gpu, shape, layers, runs)) return undefined;
  return await allOrNone(gpu, async (scope) => {
    const words = relayLayout(gpu, shape);
    const relay = await scope.storage("relay", 4 * words.end);
    const binders: ((kernel: Kernel) => GPUBindGroup)[] = [];
    let first = 0;
    for (const run of runs) {
      binders.push(await prepareRun(gpu, scope, run, first, relay, buffers));
      first += run.length;
    }
    let workgroups = gpu.isSoftware ? SOFTWARE_WORKGROUPS : USUAL_WORKGROUPS;
    let kernel = await layerKernel(gpu, shape, runs, words, workgroups);
    if (kernel && !gpu.isSoftware) {
      const residents = await residentsOf(gpu, kernel, relay, binders[0](kernel));
      if (residents < workgroups) kernel = await layerKernel(gpu, shape, runs, words, residents);
      workgroups = residents;
    }
    const destroy = () => scope[Symbol.dispose]();
    if (!kernel) {
      destroy();
      return undefined;
    }
    const dispatches: Dispatch[] = [];
    for (const bind of binders) dispatches.push({ kernel, bindings: bind(kernel), workgroups: [workgroups, 1, 1] });
    return { dispatches, relay, destroy };
  });
}

/** Consecutive layers that share their buffers. */
function shareRuns(layers: readonly DecodeLayer[]): DecodeLayer[][] {
  const runs: DecodeLayer[][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last && buffersOf(last[0]).every((buffer, i) => buffer === buffersOf(layer)[i])) last.push(layer);
    else runs.push([layer]);
  }
  return runs;
}

function buffersOf(layer: DecodeLayer): GPUBuffer[] {
  const { keys, values } = layer.cache;
  return [...planesOf(slabsOf(layer)[0]), keys, values].map(({ buffer }) => buffer);
}

/** Joins the vectors of some layers, and binds all that they need to a kernel. */
async function prepareRun(
  gpu: Gpu,
  scope: BufferScope,
  run: readonly DecodeLayer[],
  first: number,
  relay: GPUBuffer,
  { input, output, rotations, sequence }: LayerBuffers,
): Promise<(kernel: Kernel) => GPUBindGroup> {
  const joined = async (label: string, vectors: readonly GPUBuffer[]) => {
    const sizeBytes = vectors.reduce((sum, { size }) => sum + size, 0);
    const buffer = await scope.storage(label, sizeBytes);
    let at = 0;
    for (const vector of vectors) {
      gpu.copy(vector, 0, buffer, at, vector.size);
      at += vector.size;
    }
    return buffer;
  };
  const [{ cache, bias, headNorm }] = run;
  const norms = await joined("layer norms", run.flatMap(({ attentionNorm, mlpNorm }) => [attentionNorm, mlpNorm]));
  const headNorms = headNorm && await joined("head norms", run.map((layer) => layer.headNorm!.weights));
  const biases = bias && await joined("biases", run.map((layer) => layer.bias!));
  const [slab] = slabsOf(run[0]);
  const starts = run.flatMap((layer) => outlierStarts(layer, slab.outliers));
  const info = await scope.upload("layer info", Uint32Array.of(first, run.length, ...starts));
  return (kernel) =>
    gpu.bind(kernel, [
      ...planesOf(slab).map(fromOffset),
      relay,
      input,
      output,
      norms,
      rotations,
      fromOffset(cache.keys),
      fromOffset(cache.values),
      sequence,
      headNorms ?? norms,
      biases ?? norms,
      info,
    ]);
}

/** The range from a plane's start to the end of its buffer. */
function fromOffset({ buffer, offset }: Plane): Plane {
  return { buffer, offset, size: buffer.size - offset };
}

function matricesOf({ qkv, o, gateUp, down }: LayerMatrices): PackedMatrix[] {
  return [qkv, o, gateUp, down];
}

function slabsOf({ matrices }: DecodeLayer): PackedSlab[] {
  return matricesOf(matrices).map(({ slabs }) => slabs[0]);
}

function suits(
  gpu: Gpu,
  shape: LayerShape,
  layers: readonly DecodeLayer[],
  runs: readonly (readonly DecodeLayer[])[],
): boolean {
  const { hidden, intermediate, attention: { heads, headSize } } = shape;
  const [{ bias, headNorm }] = layers;
  const stride = planeStrides(runs);
  return IS_DENO && layers.length > 1 && gpu.subgroupSize >= rowLanes(shape) && gpu.subgroupSize <= 64 &&
    gpu.device.limits.maxStorageBuffersPerShaderStage >= STORAGE_BUFFERS &&
    [hidden, intermediate, heads * headSize, headSize].every((channels) => channels % 16 === 0) &&
    layers.every((layer) =>
      !layer.bias === !bias && !layer.headNorm === !headNorm &&
      matricesOf(layer.matrices).every(({ slabs, refineEvery }) => slabs.length === 1 && refineEvery === 8) &&
      slabsOf(layer).every((slab) => planesOf(slab).every(({ buffer }, i) => buffer === buffersOf(layer)[i]))
    ) &&
    runs.every((run) =>
      run.every((layer, i) =>
        offsetsWithin(layer, run[0]).every((offset, j) =>
          offset === offsetsWithin(layers[0], layers[0])[j] + i * stride[j % stride.length]
        ) &&
        layer.cache.keys.offset === run[0].cache.keys.offset + i * layer.cache.keys.size &&
        layer.cache.values.offset === run[0].cache.values.offset + i * layer.cache.values.size
      )
    );
}

/** Byte offsets of the planes that lie alike in all layers. */
function planeOffsets(layer: DecodeLayer): number[] {
  return slabsOf(layer).flatMap(({ base, refine, meta, tileScale }) => [base, refine, meta, tileScale])
    .map(({ offset }) => offset);
}

/** The same from where the planes of a run's first layer start, which is where they are bound. */
function offsetsWithin(layer: DecodeLayer, first: DecodeLayer): number[] {
  const starts = planeOffsets(first);
  return planeOffsets(layer).map((offset, i) => offset - starts[i % PLANES_ALIKE]);
}

/** Bytes from a layer to the next in each of those planes; 0 where each layer has its own. */
function planeStrides(runs: readonly (readonly DecodeLayer[])[]): number[] {
  const longest = runs.reduce((most, run) => run.length > most.length ? run : most);
  const first = planeOffsets(longest[0]).slice(0, PLANES_ALIKE);
  return longest.length === 1 ? first.map(() => 0) : first.map((offset, i) => planeOffsets(longest[1])[i] - offset);
}

/** First word of the outlier planes, counted from the first of the run, and of the residuals of each matrix. */
function outlierStarts(layer: DecodeLayer, first: Plane): number[] {
  return slabsOf(layer).flatMap((
    { outliers, outlierResiduals },
  ) => [(outliers.offset - first.offset) / 4, outlierResiduals]);
}

function rowLanes({ attention }: LayerShape): number {
  return 2 ** Math.ceil(Math.log2(attention.headSize / 8));
}

/**
 * Splits of sequences up to 256 tokens, up to 1024, and longer ones: the more, the more workgroups have a part. Without
 * any, nothing need be combined.
 */
function splitTiers(gpu: Gpu, { attention }: LayerShape): [number, number, number] {
  const splits = (workgroups: number) =>
    gpu.isSoftware ? 1 : Math.max(1, Math.min(16, Math.floor(workgroups / attentionGroups(attention))));
  return [1, splits(64), splits(USUAL_WORKGROUPS)];
}

/** First words of what is handed over. */
function relayLayout(gpu: Gpu, shape: LayerShape) {
  const { hidden, intermediate, attention: { heads, keyValueHeads, headSize } } = shape;
  const vector = (words: number) => Math.ceil(words / VECTOR_WORDS) * VECTOR_WORDS;
  const splits = Math.max(...splitTiers(gpu, shape));
  const qkv = CONTROL_WORDS;
  const sums = qkv + vector((heads + 2 * keyValueHeads) * headSize);
  const sumsStride = vector(heads * headSize);
  const pairs = sums + splits * sumsStride;
  const mixed = pairs + vector(2 * splits * heads);
  const middle = mixed + vector(heads * headSize);
  const inner = middle + vector(hidden);
  const stream = inner + vector(intermediate);
  return { qkv, sums, sumsStride, pairs, mixed, middle, inner, stream, end: stream + vector(hidden) };
}

/** The product of a stage. */
interface Product {
  readonly rows: number;
  readonly halfBlocks: number;
  readonly rowsPerOutput: number;
}

/** Steps of 4 rows that a workgroup takes of a product. */
function workgroupSteps({ rows, rowsPerOutput }: Product, workgroups: number): number {
  return rowsPerOutput * Math.ceil(Math.ceil(rows / rowsPerOutput / STEP_ROWS) / workgroups);
}

/** Teams of a workgroup: so many that the rounds of all products together take the fewest turns of a team. */
function chooseTeams(products: readonly Product[], team: Team, workgroups: number): number {
  const cost = (teams: number) =>
    products.reduce((sum, product) => {
      const rowTeams = Math.floor(teams / Math.ceil(product.halfBlocks / team.lanes));
      return sum + teams * Math.ceil(workgroupSteps(product, workgroups) / rowTeams);
    }, 0);
  return [12, 13, 14, 15, 16].reduce((best, teams) => cost(teams) < cost(best) ? teams : best);
}

/** The kernel for so many workgroups, or nothing where workgroup memory has no room for its share. */
async function layerKernel(
  gpu: Gpu,
  shape: LayerShape,
  runs: readonly (readonly DecodeLayer[])[],
  words: ReturnType<typeof relayLayout>,
  workgroups: number,
): Promise<Kernel | undefined> {
  const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = gpu.device.limits;
  const layers = runs.flat();
  const [{ matrices, cache, bias, headNorm }] = layers;
  const [baseStride, refineStride, metaStride, scaleStride] = planeStrides(runs);
  const { hidden, intermediate, attention } = shape;
  const { heads, keyValueHeads, headSize, slidingWindow } = attention;
  const team = chooseTeam(gpu, rowLanes(shape));
  const queries = queriesOf(attention);
  const products = matricesOf(matrices).map((matrix) => ({
    rows: matrix.rows,
    halfBlocks: matrix.halfBlocks,
    rowsPerOutput: matrix === matrices.gateUp ? 2 : 1,
  }));
  const columns = products.map(({ halfBlocks }) => Math.ceil(halfBlocks / team.lanes));
  const steps = products.map((product) => workgroupSteps(product, workgroups));
  const teams = chooseTeams(products, team, workgroups);
  const threads = teams * team.lanes;
  const mergeLanes = Math.min(team.lanes, 4 * rowLanes(shape));
  // Attention merges its sums in the cells: those of one query fill high bytes, those of four low bytes too.
  const mergedVectors = ((threads / mergeLanes) * rowLanes(shape) * 8 * queries) / 4;
  const cells = Math.max(Math.max(...columns) * team.lanes * LANE_GROUPS, mergedVectors / (queries === 1 ? 1 : 2));
  const outlierCounts = layers.flatMap(slabsOf).map(({ outlierCount, rows }) => outlierCount / rows);
  const mostOutliers = Math.max(...outlierCounts);
  const hasOutliers = mostOutliers > 0 ? 1 : 0;
  const partials = Math.max(...steps.map((count, i) => (columns[i] + hasOutliers) * count * STEP_ROWS));
  const starts = hasOutliers * Math.max(...steps) * STEP_ROWS + 2;
  const bytes = cells * 40 + 4 * partials + 4 * starts + 4 * (queries + 2) * headSize + FIXED_BYTES;
  if (
    bytes > maxComputeWorkgroupStorageSize || threads > maxComputeInvocationsPerWorkgroup ||
    Math.max(...columns) > teams
  ) return undefined;
  const [shortSplits, middleSplits, longSplits] = splitTiers(gpu, shape);
  const slabs = slabsOf(layers[0]);
  const starting = (name: string, plane: (slab: PackedSlab) => Plane, elementBytes: number) => ({
    [`${name}_o`]: (plane(slabs[1]).offset - plane(slabs[0]).offset) / elementBytes,
    [`${name}_gate_up`]: (plane(slabs[2]).offset - plane(slabs[0]).offset) / elementBytes,
    [`${name}_down`]: (plane(slabs[3]).offset - plane(slabs[0]).offset) / elementBytes,
  });
  return await gpu.createKernel("decode_layer", decodeLayerCode(team, queries), {
    team: team.lanes,
    workgroup_size: threads,
    cell_count: cells,
    partial_count: partials,
    start_count: starts,
    counted_workgroups: COUNTED_WORKGROUPS,
    hidden,
    intermediate,
    epsilon: shape.normEpsilon,
    has_layer_outliers: hasOutliers,
    outlier_lanes: Math.min(team.lanes, 2 ** Math.ceil(Math.log2(Math.max(1, mostOutliers)))),
    all_layers: layers.length,
    base_stride: baseStride / 16,
    refine_stride: refineStride / 8,
    meta_stride: metaStride / 16,
    scale_stride: scaleStride / 16,
    ...starting("base", ({ base }) => base, 16),
    ...starting("refine", ({ refine }) => refine, 8),
    ...starting("meta", ({ meta }) => meta, 16),
    ...starting("scale", ({ tileScale }) => tileScale, 16),
    qkv_at: words.qkv,
    sums_at: words.sums,
    sums_stride: words.sumsStride,
    pairs_at: words.pairs,
    mixed_at: words.mixed,
    middle_at: words.middle,
    inner_at: words.inner,
    hidden_at: words.stream,
    short_splits: shortSplits,
    middle_splits: middleSplits,
    long_splits: longSplits,
    heads,
    key_value_heads: keyValueHeads,
    head_size: headSize,
    capacity: cache.capacity,
    ...(slidingWindow !== undefined && { window: slidingWindow }),
    row_lanes: rowLanes(shape),
    merge_lanes: mergeLanes,
    has_bias: bias ? 1 : 0,
    has_norm: headNorm ? 1 : 0,
    norm_epsilon: headNorm?.epsilon ?? 0,
  });
}

const residents = new WeakMap<Kernel, number>();

/** Workgroups of a kernel that run side by side. */
async function residentsOf(gpu: Gpu, kernel: Kernel, relay: GPUBuffer, bindings: GPUBindGroup): Promise<number> {
  const known = residents.get(kernel);
  if (known !== undefined) return known;
  gpu.submit([{ kernel, bindings, workgroups: [COUNTED_WORKGROUPS, 1, 1] }]);
  const control = new Uint32Array(await gpu.read(relay, 4 * CONTROL_WORDS));
  gpu.write(relay, new Uint32Array(CONTROL_WORDS));
  const counted = Math.min(control[RESIDENT_WORD], COUNTED_WORKGROUPS - 1);
  residents.set(kernel, counted);
  return counted;
}
