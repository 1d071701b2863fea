// A layer's weights on their way to device memory: uploaded or copied, and their planes put into shared buffers.
import { joinArrays } from "../../quant/concatenate.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { type LayerArena, sharePlanes } from "../../kernels/matrix/share_planes.ts";
import { copyMatrix, placeParts } from "../../kernels/matrix/slabs.ts";
import { whyNeverWhole } from "../../kernels/layer/layer_run.ts";
import { canJoin, uploadMatrix } from "../../kernels/product/linear.ts";
import type { HostMatrix, WeightMatrix } from "../../kernels/product/weight_format.ts";
import {
  hasBias,
  type LinearKind,
  linearName,
  linearShape,
  type NormKind,
  normName,
  normWidth,
  type Stage,
  STAGES,
} from "../llama/layer.ts";
import type { EngineLayer, JoinedLinear } from "./engine_weights.ts";
import type { WeightSource } from "./weight_source.ts";

export interface Uploaded {
  readonly gpu: Gpu;
  /** Matrices with planes of their own. */
  readonly matrices: Set<WeightMatrix>;
  /** Vectors, and planes that matrices share. */
  readonly scope: BufferScope;
}

/** A value for each stage. */
async function byStage<T>(make: (stage: Stage) => T | Promise<T>): Promise<Record<Stage["name"], T>> {
  const made: [Stage["name"], T][] = [];
  for (const stage of STAGES) made.push([stage.name, await make(stage)]);
  return Object.fromEntries(made) as Record<Stage["name"], T>;
}

export async function uploadLayer(uploaded: Uploaded, source: WeightSource, index: number): Promise<EngineLayer> {
  const { config } = source;
  const vectors = (names: readonly string[], lengths: readonly number[]) =>
    uploadVectors(uploaded, source, names, lengths);
  const norms = (...kinds: readonly NormKind[]) =>
    vectors(kinds.map((kind) => normName(index, kind)), kinds.map((kind) => normWidth(config, kind)!));
  const biases = (kinds: readonly LinearKind[]) =>
    vectors(kinds.map((kind) => `${linearName(index, kind)}.bias`), kinds.map((kind) => linearShape(config, kind)[0]));
  const [{ linears: qkv }, { linears: o }] = STAGES;
  const linears = await byStage(async (stage) => {
    const parts: HostMatrix[] = [];
    for (const kind of stage.linears) parts.push(await source.linear(index, kind));
    return await uploadJoined(uploaded, parts);
  });
  return {
    linears,
    attentionNorm: await norms("attentionNorm"),
    mlpNorm: await norms("mlpNorm"),
    ...(hasBias(config, qkv[0]) && { qkvBias: await biases(qkv) }),
    ...(hasBias(config, o[0]) && { outputBias: await biases(o) }),
    ...(normWidth(config, "queryNorm") && { headNorm: await norms("queryNorm", "keyNorm") }),
  };
}

/** Uploads vectors one after the other in one buffer. */
export async function uploadVectors(
  { scope }: Uploaded,
  source: WeightSource,
  names: readonly string[],
  lengths: readonly number[],
): Promise<GPUBuffer> {
  const parts: Float32Array<ArrayBuffer>[] = [];
  for (const [i, name] of names.entries()) {
    const part = await source.vector(name, lengths[i]);
    if (!part) throw new SyntaxError(`no tensor ${name}, must have one`);
    parts.push(part);
  }
  return await scope.upload(names[0], joinArrays(parts));
}

/** Layers whose matrices share their planes where that is possible, and where they then lie, or why they don't. */
export interface SharedLayers {
  readonly layers: readonly EngineLayer[];
  /** Of each run of them, one after the other. */
  readonly arenas: readonly (LayerArena | string)[];
}

/**
 * Moves the planes of layers into shared buffers, for kernels that take whole layers; in two halves where the
 * device can't bind them together or has no room for a copy of all.
 */
export async function shareLayers(uploaded: Uploaded, layers: readonly EngineLayer[]): Promise<SharedLayers> {
  const { gpu, matrices, scope } = uploaded;
  const never = whyNeverWhole(gpu);
  if (never) return { layers, arenas: [never] };
  const parts = layers.map(({ linears }) => STAGES.map(({ name }) => linears[name]));
  if (parts.flat().some(({ length }) => length > 1)) {
    return { layers, arenas: ["linear layers of one input aren't packed alike, must be"] };
  }
  const own = parts.map((layer) => layer.map(([matrix]) => matrix));
  if (own.flat().some(({ kind }) => kind !== own[0][0].kind)) {
    return { layers, arenas: ["linear layers have different formats, must have one"] };
  }
  // Without room for both copies the matrices stay as they are, and layers then run operation by operation.
  const arena = await sharePlanes(gpu, own).catch((error) => {
    if (!(error instanceof OutOfMemoryError)) throw error;
  });
  if (arena) {
    for (const matrix of own.flat()) matrices.delete(matrix);
    for (const buffer of arena.buffers) scope.own(buffer);
    const moved = arena.layers.map(async (shared, i) => {
      const next = shared.values();
      return { ...layers[i], linears: await byStage(() => [next.next().value!]) };
    });
    return { layers: await Promise.all(moved), arenas: [arena] };
  }
  if (layers.length === 1) {
    return { layers, arenas: ["a layer's planes can't be bound together, or have no room to be moved"] };
  }
  const middle = Math.ceil(layers.length / 2);
  const first = await shareLayers(uploaded, layers.slice(0, middle));
  const second = await shareLayers(uploaded, layers.slice(middle));
  return { layers: [...first.layers, ...second.layers], arenas: [...first.arenas, ...second.arenas] };
}

/** A layer with the same weights in buffers of its own. */
export async function copyLayer({ gpu, matrices, scope }: Uploaded, layer: EngineLayer): Promise<EngineLayer> {
  const linears = await byStage(async ({ name }) => {
    const copied: WeightMatrix[] = [];
    for (const part of layer.linears[name]) {
      const copy = await copyMatrix(gpu, part);
      matrices.add(copy);
      copied.push(copy);
    }
    return copied;
  });
  const vector = async (buffer: GPUBuffer) => scope.own(await gpu.duplicate(buffer));
  return {
    linears,
    attentionNorm: await vector(layer.attentionNorm),
    mlpNorm: await vector(layer.mlpNorm),
    ...(layer.qkvBias && { qkvBias: await vector(layer.qkvBias) }),
    ...(layer.outputBias && { outputBias: await vector(layer.outputBias) }),
    ...(layer.headNorm && { headNorm: await vector(layer.headNorm) }),
  };
}

/** Joins neighbours of one format and uploads them. */
async function uploadJoined({ gpu, matrices }: Uploaded, parts: readonly HostMatrix[]): Promise<JoinedLinear> {
  const groups: HostMatrix[][] = [];
  for (const part of parts) {
    const last = groups.at(-1);
    if (last && canJoin(last[last.length - 1], part)) last.push(part);
    else groups.push([part]);
  }
  const own: WeightMatrix[] = [];
  for (const group of groups) {
    const matrix = await uploadMatrix(gpu, group);
    matrices.add(matrix);
    own.push(matrix);
  }
  const placed = placeParts(own);
  own.forEach((matrix) => matrices.delete(matrix));
  placed.forEach((matrix) => matrices.add(matrix));
  return placed;
}
