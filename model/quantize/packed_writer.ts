// Quantizing a checkpoint into a packed file, layer by layer, so that an interrupted run can go on.
import type { PackedShape } from "../../quant/packed_tensor.ts";
import { blocksMetadata } from "../files/carried_blocks.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { openSafetensors } from "../files/open_directory.ts";
import { carriedFiles, carriedTensors } from "../files/packed_checkpoint.ts";
import { type PackedMetadata, packedMetadata, readPackedShapes } from "../files/packed_file.ts";
import { readTensorBytes } from "../files/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../files/safetensors_writer.ts";
import { pathExists } from "../host/path_exists.ts";
import { release } from "../host/release.ts";
import { LINEAR_KINDS, type LinearKind, linearName } from "../llama/layer.ts";
import type { TunedParameters } from "../tune/parameters.ts";
import type { TunedModel, TuningReport, TuningWatch } from "../tune/tune_model.ts";
import type { TuningSettings } from "../tune/tuning_plan.ts";
import {
  layerPath,
  prepareLayers,
  readStoredLayer,
  removeLayers,
  type RunInputs,
  stateOf,
  writeStoredLayer,
} from "./finished_layers.ts";
import { type LayerBefore, quantizeLayers, type QuantizePlan } from "./quantize_layers.ts";
import type { QuantizingDevice, QuantizingRun, StoredLayer } from "./quantizing_device.ts";
import { quantizedSource, tunedTensors } from "./tuned_tensors.ts";
import { whyLeftOut } from "./why_left_out.ts";

/** What a packed file is written from. */
export interface PackedFilePlan
  extends RunInputs, Pick<QuantizePlan, "onProgress" | "onStage" | "tellsHessians" | "signal"> {
  readonly path: string;
  /** Whether targets are corrected, which takes the text through the unquantized model too. */
  readonly correctTarget: boolean;
  /** Whether to go on with the layers that an interrupted run left in `path`.layers. */
  readonly resume: boolean;
  /** Fails where the checkpoint changed while it was read; asked before the file appears. */
  readonly checkSource?: () => Promise<void>;
  /** How the quantized model is tuned on the calibration text, where it is, which takes corrected targets. */
  readonly tuning?: TuningSettings;
  /** Told why the model stays untuned where {@linkcode whyLeftOut} knows; without it the run fails. */
  readonly onUntuned?: (reason: string) => void;
  readonly onLayer?: (stored: StoredLayer, layer: LayerBefore) => void;
  readonly onEpoch?: TuningWatch["onEpoch"];
  readonly onTuned?: (report: TuningReport) => void;
}

/** Share of the time that quantizing takes where the model is tuned after it, by the runs in docs/accuracy_study.md. */
export const QUANTIZING_SHARE = 0.25;

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
  const { path } = plan;
  const { config } = checkpoint;
  plan.signal?.throwIfAborted();
  const state = stateOf(plan, config.layers);
  await checkCarried(checkpoint, plan);
  await prepareLayers(path, plan.resume, state);
  const readStored = (index: number) => readStoredLayer(layerPath(path, index), index, state);
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
        const file = layerPath(path, layer.index);
        if (!await pathExists(file)) await writeStoredLayer(file, layer.index, stored, plan.metadata, state);
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
        plan.onUntuned(whyLeftOut(error));
        return undefined;
      });
      if (tuned) plan.onTuned?.(tuned);
    }
  }
  const checkSource = async () => {
    // What was made of a source that changed is of no use to a later run.
    await plan.checkSource?.().catch(async (error) => {
      await removeLayers(path);
      throw error;
    });
  };
  const layerPaths = Array.from({ length: config.layers }, (_, i) => layerPath(path, i));
  await assemble(
    checkpoint,
    layerPaths,
    tuned?.parameters,
    { ...plan, metadata: metadataOf(plan, tuned) },
    checkSource,
  );
  await removeLayers(path);
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
  { calibration: windows, correctTarget, tuning: settings, quantizerOf }: PackedFilePlan,
): Promise<QuantizingRun> {
  const { config } = checkpoint;
  if (windows.length === 0) return await device.start(config);
  const embedding = await checkpoint.read("model.embed_tokens.weight", [config.vocabulary, config.hidden]);
  try {
    const isQuantized = (layer: number, kind: LinearKind) => quantizerOf(layer, kind) !== undefined;
    const tuning = settings && { settings, isQuantized };
    return await device.start(config, { embedding, windows, correctTarget, ...(tuning && { tuning }) });
  } finally {
    release(embedding); // the run took what the text needs
  }
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
