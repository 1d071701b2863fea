/**
 * Quantizing a checkpoint into a packed file, layer by layer, so that an interrupted run can go on.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { type LayerBefore, quantizeLayers, type QuantizePlan } from "./quantize_layers.ts";
import { writeTextBeside } from "../host/atomic_file.ts";
import { blocksMetadata } from "../files/carried_blocks.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { parseJsonObject } from "../host/json.ts";
import { FORMAT_VERSION } from "../../quant/format.ts";
import type { PackedShape } from "../../quant/packed_tensor.ts";
import { LINEAR_KINDS, type LinearKind, linearName } from "../llama/layer.ts";
import { openSafetensors } from "../files/open_directory.ts";
import { carriedFiles, carriedTensors } from "../files/packed_checkpoint.ts";
import {
  type PackedMetadata,
  packedMetadata,
  planesToWrite,
  readPackedShapes,
  readPackedTensor,
} from "../files/packed_file.ts";
import { pathExists } from "../host/path_exists.ts";
import { quoteText } from "../host/quote_text.ts";
import { release } from "../host/release.ts";
import { readTensorBytes } from "../files/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../files/safetensors_writer.ts";
import type { TunedParameters } from "../tune/parameters.ts";
import type { TunedModel, TuningReport, TuningWatch } from "../tune/tune_model.ts";
import type { TuningSettings } from "../tune/tuning_plan.ts";
import type { QuantizingDevice, QuantizingRun, StoredLayer } from "./quantizing_device.ts";
import { quantizedSource, tunedTensors } from "./tuned_tensors.ts";

/** What a packed file is written from. */
export interface PackedFilePlan extends Pick<QuantizePlan, "quantizerOf" | "onProgress" | "onStage" | "signal"> {
  /** File to write. */
  readonly path: string;
  /** Calibration windows; none for quantizers without error feedback. */
  readonly calibration: readonly Uint32Array[];
  /** Whether targets are corrected, which takes the text through the unquantized model too. */
  readonly correctTarget: boolean;
  /** What the file says of how it was made. */
  readonly metadata: PackedMetadata;
  /** Whether to go on with the layers that an interrupted run left in `path`.layers. */
  readonly resume: boolean;
  /** Fails where the checkpoint changed while it was read; asked before the file appears. */
  readonly checkSource?: () => Promise<void>;
  /** How the quantized model is tuned on the calibration text, where it is, which takes corrected targets. */
  readonly tuning?: TuningSettings;
  /** Told why the model stays untuned where that fails; without it the run fails. */
  readonly onUntuned?: (reason: string) => void;
  /** Told of each finished layer. */
  readonly onLayer?: (stored: StoredLayer, layer: LayerBefore) => void;
  /** Told of each epoch of tuning. */
  readonly onEpoch?: TuningWatch["onEpoch"];
  /** Told what tuning did. */
  readonly onTuned?: (report: TuningReport) => void;
}

/** Share of the time that quantizing takes where the model is tuned after it, by the runs in docs/accuracy_study.md. */
export const QUANTIZING_SHARE = 0.25;

/** Directory in which finished layers wait for the others. */
export function layersDirectory(path: string): string {
  return `${path}.layers`;
}

/** File of that directory that says what its layers were made with. */
function statePath(path: string): string {
  return join(layersDirectory(path), "run.json");
}

/** Settings in the metadata of an interrupted run, where there is one. */
export async function readInterruptedSettings(path: string): Promise<Readonly<Record<string, unknown>> | undefined> {
  const file = statePath(path);
  if (!await pathExists(file)) return undefined;
  const { settings } = parseJsonObject(file, await Deno.readTextFile(file)).fields;
  return parseJsonObject(`${file}: settings`, String(settings)).fields;
}

/**
 * Quantizes a checkpoint into a packed file, whose path the caller has locked. Finished layers lie in `path`.layers
 * until the file is whole; the file appears under its name only then. Tuning starts again where it was interrupted: it
 * goes the same way.
 *
 * @throws {RangeError} when there is nothing to resume from, or it was made with other settings or from another checkpoint
 * @throws {TypeError} when a quantizer doesn't write the packed format
 * @throws {SyntaxError} when a tensor that stays as it is holds NaN or infinity
 * @throws {Error} when `path`.layers holds anything that no run left
 */
export async function writePackedFile(
  device: QuantizingDevice,
  checkpoint: Checkpoint,
  plan: PackedFilePlan,
): Promise<void> {
  const directory = layersDirectory(plan.path);
  const { config } = checkpoint;
  plan.signal?.throwIfAborted();
  const state = stateOf(plan, config.layers);
  await checkCarried(checkpoint, plan);
  await prepareDirectory(directory, plan, state);
  const layerPath = (index: number) => join(directory, `layer-${index}.safetensors`);
  const readStored = (index: number) => readStoredLayer(layerPath(index), index, state);
  let tuned: TunedModel | undefined;
  {
    using run = await startRun(device, checkpoint, plan);
    using source = await device.openLayers(checkpoint);
    const { tuning, signal, onProgress } = plan;
    const report = (first: number, size: number) => (share: number, step: string) =>
      onProgress?.(first + size * share, step);
    await quantizeLayers(run, source, {
      ...plan,
      onProgress: report(0, tuning ? QUANTIZING_SHARE : 1),
      finishedLayer: readStored,
      async onLayer(stored, layer) {
        const path = layerPath(layer.index);
        if (!await pathExists(path)) await writeStoredLayer(path, layer.index, stored, plan.metadata, state);
        plan.onLayer?.(stored, layer);
      },
    });
    if (tuning) {
      const watch = {
        onProgress: report(QUANTIZING_SHARE, 1 - QUANTIZING_SHARE),
        ...(plan.onEpoch && { onEpoch: plan.onEpoch }),
        ...(signal && { signal }),
      };
      tuned = await run.tune(quantizedSource(checkpoint, readStored), tuning, watch).catch((error) => {
        if (!plan.onUntuned || signal?.aborted) throw error;
        plan.onUntuned(error.message);
        return undefined;
      });
      if (tuned) plan.onTuned?.(tuned);
    }
  }
  const checkSource = async () => {
    // What was made of a source that changed is of no use to a later run.
    await plan.checkSource?.().catch(async (error) => {
      await removeLayers(directory);
      throw error;
    });
  };
  const layerPaths = Array.from({ length: config.layers }, (_, i) => layerPath(i));
  await assemble(
    checkpoint,
    layerPaths,
    tuned?.parameters,
    { ...plan, metadata: metadataOf(plan, tuned) },
    checkSource,
  );
  await removeLayers(directory);
}

/** What the file says: of tuning too, which no layer depends on, so that layers go on with it or without. */
function metadataOf({ metadata, tuning }: PackedFilePlan, tuned: TunedModel | undefined): PackedMetadata {
  if (!tuning || !tuned || tuned.epoch === 0) return metadata;
  const { seed: _, ...settings } = tuning;
  return { ...metadata, settings: JSON.stringify({ ...JSON.parse(metadata.settings), tuning: settings }) };
}

/** Reads what will be carried: what can't be is found before the layers are quantized. @throws {SyntaxError} */
async function checkCarried(checkpoint: Checkpoint, { quantizerOf }: PackedFilePlan): Promise<void> {
  const packed = new Set<string>();
  for (let layer = 0; layer < checkpoint.config.layers; layer++) {
    for (const kind of LINEAR_KINDS) if (quantizerOf(layer, kind)) packed.add(linearName(layer, kind));
  }
  for (const { bytes } of carriedTensors(checkpoint, packed)) release(await bytes());
}

/** Starts a run with the calibration text, where there is one. */
async function startRun(
  device: QuantizingDevice,
  checkpoint: Checkpoint,
  { calibration: windows, correctTarget, tuning }: PackedFilePlan,
): Promise<QuantizingRun> {
  const { config } = checkpoint;
  if (windows.length === 0) return await device.start(config);
  const embedding = await checkpoint.read("model.embed_tokens.weight", [config.vocabulary, config.hidden]);
  try {
    return await device.start(config, { embedding, windows, correctTarget, ...(tuning && { tuning }) });
  } finally {
    release(embedding); // the run took what the text needs
  }
}

/** Makes the directory of finished layers, or checks that it belongs to this run. */
async function prepareDirectory(directory: string, plan: PackedFilePlan, state: string): Promise<void> {
  const file = statePath(plan.path);
  if (!plan.resume || await isHardlyStarted(directory)) {
    await removeLayers(directory);
    await Deno.mkdir(directory, { recursive: true });
    await writeTextBeside(file, state);
    return;
  }
  const found = await Deno.readTextFile(file).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new RangeError(`${directory} holds no interrupted run, must be started without resuming`);
  });
  if (found !== state) {
    throw new RangeError(
      `${directory} was made with other settings or another checkpoint: ${describeDifference(file, found, state)}`,
    );
  }
}

/** Whether a run ended before it could say what it is: a directory without anything to go on with. */
async function isHardlyStarted(directory: string): Promise<boolean> {
  if (!await pathExists(directory)) return false;
  const files = await Array.fromAsync(Deno.readDir(directory));
  return files.every(({ name }) => name.startsWith("run.json.partial-"));
}

/** Names the settings that differ; the hash of calibration text and quantizers only where they don't say it. */
function describeDifference(path: string, found: string, wanted: string): string {
  const settingsOf = (text: string) => {
    const { settings, inputs, ...rest } = parseJsonObject(path, text).fields;
    return { ...rest, ...parseJsonObject(`${path}: settings`, String(settings)).fields, inputs };
  };
  const [a, b]: Record<string, unknown>[] = [settingsOf(found), settingsOf(wanted)];
  const [before, now] = [a, b].map((settings) => (key: string) => JSON.stringify(settings[key]) ?? "missing");
  const keys = Object.keys({ ...a, ...b }).filter((key) => key !== "inputs" && before(key) !== now(key));
  if (keys.length === 0) return "calibration text or quantizers differ";
  return keys.map((key) => `${key} was ${before(key)}, is ${now(key)}`).join("; ");
}

/**
 * What layers that are resumed from must have been made with: metadata, the version of their format, and a hash of
 * calibration tokens and every quantizer.
 */
function stateOf({ metadata, calibration, quantizerOf }: PackedFilePlan, layers: number): string {
  const hash = createHash("sha256");
  for (const window of calibration) hash.update(window);
  for (let layer = 0; layer < layers; layer++) {
    hash.update(JSON.stringify(LINEAR_KINDS.map((kind) => quantizerOf(layer, kind) ?? null)));
  }
  return JSON.stringify({ ...metadata, formatVersion: FORMAT_VERSION, inputs: hash.digest("hex") });
}

/** Removes a directory of finished layers. @throws {Error} for one that holds anything else */
async function removeLayers(directory: string): Promise<void> {
  if (!await pathExists(directory)) return;
  const files = await Array.fromAsync(Deno.readDir(directory));
  const ours = /^(run\.json|layer-\d+\.safetensors)(\.partial-\d+(-\d+)?)?$/;
  const other = files.find(({ name, isFile }) => !isFile || !ours.test(name));
  if (other) throw new Error(`${directory} holds ${quoteText(other.name)}, must hold nothing but layers to be removed`);
  for (const { name } of files) await Deno.remove(join(directory, name));
  await Deno.remove(directory);
}

async function writeStoredLayer(
  path: string,
  index: number,
  stored: StoredLayer,
  metadata: PackedMetadata,
  state: string,
): Promise<void> {
  const tensors: TensorToWrite[] = [];
  const shapes = new Map<string, PackedShape>();
  for (const [kind, tensor] of stored) {
    const name = linearName(index, kind);
    if (tensor.kind !== "twobit") throw new TypeError(`${name} is stored as ${tensor.kind}, must be packed`);
    tensors.push(...planesToWrite(name, tensor.tensor));
    shapes.set(name, tensor.tensor);
  }
  await writeSafetensors(path, tensors, { ...packedMetadata(shapes, metadata), run: state });
}

/** Reads a finished layer, where there is one. @throws {RangeError} for one of another run */
async function readStoredLayer(path: string, index: number, state: string): Promise<StoredLayer | undefined> {
  if (!await pathExists(path)) return undefined;
  const file = await openSafetensors(path);
  using _source = file.source;
  if (file.metadata.run !== state) {
    throw new RangeError(`${path} was made with other settings or from another checkpoint, must be removed`);
  }
  const shapes = readPackedShapes(file);
  const stored = new Map<LinearKind, { kind: "twobit"; tensor: Awaited<ReturnType<typeof readPackedTensor>> }>();
  for (const kind of LINEAR_KINDS) {
    const shape = shapes.get(linearName(index, kind));
    if (shape) {
      stored.set(kind, { kind: "twobit", tensor: await readPackedTensor(file, linearName(index, kind), shape) });
    }
  }
  return stored;
}

/** Joins the finished layers, what tuning changed of them and the rest of the checkpoint into the packed file. */
async function assemble(
  checkpoint: Checkpoint,
  layerPaths: readonly string[],
  parameters: TunedParameters | undefined,
  plan: PackedFilePlan,
  checkSource: () => Promise<void>,
): Promise<void> {
  const shapes = new Map<string, PackedShape>();
  const planes: TensorToWrite[] = [];
  using files = new DisposableStack();
  for (const path of layerPaths) {
    const file = await openSafetensors(path);
    files.use(file.source);
    for (const [name, shape] of readPackedShapes(file)) shapes.set(name, shape);
    for (const info of file.tensors.values()) planes.push({ ...info, bytes: () => readTensorBytes(file, info) });
  }
  const carried = carriedTensors(checkpoint, shapes);
  const tuned = parameters && tunedTensors(parameters, shapes);
  const tensors = [...await carriedFiles(checkpoint), ...carried, ...planes];
  const metadata = { ...packedMetadata(shapes, plan.metadata), ...blocksMetadata(carried) };
  const changed = tensors.map((tensor) => tuned?.get(tensor.name) ?? tensor);
  await writeSafetensors(plan.path, changed, metadata, checkSource);
}
