// Launcher of whole transformer layers of a decode step, several in one dispatch.
import type { BufferScope } from "../gpu/buffer_scope.ts";
import { attentionRowLanes, type DecodeAttentionBuffers, SHORT_TOKENS } from "../attention/decode_attention.ts";
import type { Dispatch, Gpu, Kernel } from "../gpu/gpu.ts";
import { headShares, longSplits, mostWorkgroups, planShare, relayLayout } from "./layer_plan.ts";
import { cutRuns, type DecodeLayer, type LayerRun, type LayerShape, whyNotWhole } from "./layer_run.ts";
import type { LayerArena } from "../matrix/share_planes.ts";
import { boundPlanes, formatConstants, fromOffset, hasDensities, placesOf, stepsPart } from "./layer_format.ts";
import { countCoResident, COUNTED_WORKGROUPS } from "./co_resident.ts";
import { cacheRowBytes, cacheRowsPart } from "../attention/key_value_cache.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";
import { chooseTeam } from "../gpu/team.ts";

/** What the layers of a decode step have in common. */
export interface LayerBuffers extends Pick<DecodeAttentionBuffers, "rotations" | "sequence"> {
  /** f32 [hidden]: input of the first layer. */
  readonly input: GPUBuffer;
  /** f32 [hidden]: output of the last layer; another buffer than the input. */
  readonly output: GPUBuffer;
}

/** The dispatches of a decode step's layers. */
export interface LayerDispatches {
  /** All layers in order, some to a dispatch; they serve every position. */
  readonly dispatches: readonly Dispatch[];
  /** u32: what workgroups hand over. Where its first word is not 0, one of them waited for another in vain. */
  readonly relay: GPUBuffer;
}

/** Mesa's software adapter ends all loops of a shader after 65,535 turns, so there none may wait for another. */
const SOFTWARE_WORKGROUPS = 1;

/**
 * Dispatches that take a token through all layers of a model. Consecutive layers that share the buffers of their planes
 * and of their caches go into one dispatch. They need subgroups, and as many workgroups as run side by side on this
 * device, which is found out by running some. They are for Deno: browsers offer fewer storage buffers, and don't take
 * the kernel's sizes, which are variables, for uniform.
 *
 * @param scope takes the buffers made for them
 * @param arenas matrices of the layers, in order
 * @param layers all of the same shape
 * @throws {OutOfMemoryError} when the device has no room for what is handed over
 * @returns why the device or the layers don't suit the kernel, where they don't; the kernels for single operations then
 * do
 */
export async function decodeLayers(
  gpu: Gpu,
  scope: BufferScope,
  shape: LayerShape,
  arenas: readonly LayerArena[],
  layers: readonly DecodeLayer[],
  buffers: LayerBuffers,
): Promise<LayerDispatches | string> {
  const reason = whyNotWhole(gpu, shape, arenas);
  if (reason !== undefined) return reason;
  const runs = cutRuns(arenas, layers);
  const words = relayLayout(gpu.profile, shape);
  const relay = await scope.storage("relay", 4 * words.end);
  const binders: ((kernel: Kernel) => GPUBindGroup)[] = [];
  for (const run of runs) {
    const after = layers[(run.first + run.layers.length) % layers.length];
    binders.push(await prepareRun(gpu, scope, shape, run, after, relay, buffers));
  }
  const plan = (count: number) => layerKernel(gpu, shape, arenas, layers, words, count);
  const resident = await coResidentKernel(gpu, shape, relay, binders[0], plan);
  if (!resident) return "workgroup memory has no room for what a workgroup takes of a layer";
  const { kernel, workgroups } = resident;
  const dispatches: Dispatch[] = [];
  for (const bind of binders) dispatches.push({ kernel, bindings: bind(kernel), workgroups: [workgroups, 1, 1] });
  return { dispatches, relay };
}

/**
 * A kernel with as many workgroups as run side by side and have a part in layers.
 */
async function coResidentKernel(
  gpu: Gpu,
  shape: LayerShape,
  relay: GPUBuffer,
  bind: (kernel: Kernel) => GPUBindGroup,
  plan: (workgroups: number) => Promise<Kernel | undefined>,
): Promise<{ kernel: Kernel; workgroups: number } | undefined> {
  let workgroups = gpu.isSoftware ? SOFTWARE_WORKGROUPS : mostWorkgroups(gpu.profile, shape);
  while (workgroups > 0) {
    const kernel = await plan(workgroups);
    if (!kernel) return undefined;
    if (gpu.isSoftware) return { kernel, workgroups };
    const residents = await countCoResident(gpu, kernel, relay, bind(kernel));
    if (residents >= workgroups) return { kernel, workgroups };
    // With fewer each has more to do and needs more memory, so that fewer still may fit.
    workgroups = residents;
  }
  return undefined;
}

/** Joins the vectors of some layers, and the norm of the one after them, and binds all that they need to a kernel. */
async function prepareRun(
  gpu: Gpu,
  scope: BufferScope,
  { attention }: LayerShape,
  { first, layers, matrices }: LayerRun,
  after: DecodeLayer,
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
  const [{ cache, bias, headNorm }] = layers;
  const ownNorms = layers.flatMap(({ attentionNorm, mlpNorm }) => [attentionNorm, mlpNorm]);
  const norms = await joined("layer norms", [...ownNorms, after.attentionNorm]);
  const headNorms = headNorm && await joined("head norms", layers.map((layer) => layer.headNorm!.weights));
  const biases = bias && await joined("biases", layers.map((layer) => layer.bias!));
  const [[matrix]] = matrices;
  const sequences = cache.keys.size / cacheRowBytes(attention, cache.bits).keys / attention.keyValueHeads /
    cache.capacity;
  const info = await scope.upload("layer info", Uint32Array.of(first, layers.length, sequences, ...placesOf(matrices)));
  return (kernel) =>
    gpu.bind(kernel, {
      ...boundPlanes(matrix),
      relay,
      hidden_in: input,
      hidden_out: output,
      layer_norms: norms,
      rotations,
      keys: fromOffset(cache.keys),
      values: fromOffset(cache.values),
      sequence,
      norms: headNorms ?? norms,
      bias: biases ?? norms,
      layer_info: info,
    });
}

/** The kernel for so many workgroups, or nothing where workgroup memory has no room for its share. */
async function layerKernel(
  gpu: Gpu,
  shape: LayerShape,
  arenas: readonly LayerArena[],
  layers: readonly DecodeLayer[],
  words: ReturnType<typeof relayLayout>,
  workgroups: number,
): Promise<Kernel | undefined> {
  const [{ cache, bias, headNorm }] = layers;
  const { hidden, intermediate, attention } = shape;
  const { heads, keyValueHeads, headSize, slidingWindow } = attention;
  const rowLanes = attentionRowLanes(attention);
  const team = chooseTeam(gpu.profile, rowLanes);
  const share = planShare(gpu.profile, shape, arenas, team, workgroups);
  if (!share) return undefined;
  const shader = joinShader(wgsl, "decode_layer", stepsPart(arenas), team.exchange, cacheRowsPart(cache));
  return await gpu.createKernel(shader, {
    team: share.lanes,
    workgroup_size: share.threads,
    workgroups,
    cell_count: share.cells,
    part_columns: share.partColumns,
    partial_count: share.partials,
    counted_workgroups: COUNTED_WORKGROUPS,
    hidden,
    intermediate,
    epsilon: shape.normEpsilon,
    activation_bits: shape.activationBits ?? 16,
    has_layer_densities: hasDensities(arenas) ? 1 : 0,
    has_layer_outliers: share.hasOutliers ? 1 : 0,
    all_layers: layers.length,
    ...formatConstants(arenas),
    qkv_at: words.qkv,
    sums_at: words.sums,
    sums_stride: words.sumsStride,
    pairs_at: words.pairs,
    mixed_at: words.mixed,
    middle_at: words.middle,
    inner_at: words.inner,
    rest_at: words.rest,
    stream_at: words.stream,
    inner_groups: share.innerGroups,
    stream_quarters: share.streamQuarters,
    ends_early: share.lanes === team.lanes ? 1 : 0,
    holds_back: share.isSmall ? 0 : 1,
    short_tokens: SHORT_TOKENS,
    long_splits: longSplits(gpu.profile, shape),
    head_shares: headShares(gpu.profile, shape),
    heads,
    key_value_heads: keyValueHeads,
    head_size: headSize,
    capacity: cache.capacity,
    ...(slidingWindow !== undefined && { window: slidingWindow }),
    row_lanes: rowLanes,
    merge_lanes: Math.min(team.lanes, 4 * rowLanes),
    has_bias: bias ? 1 : 0,
    has_norm: headNorm ? 1 : 0,
    norm_epsilon: headNorm?.epsilon ?? 0,
  });
}
