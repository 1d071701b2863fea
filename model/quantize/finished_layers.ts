// The directory in which finished layers of a run wait for the others, and what says which run it was.
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { FORMAT_VERSION } from "../../quant/format.ts";
import type { PackedShape } from "../../quant/packed_tensor.ts";
import { openSafetensors } from "../files/open_directory.ts";
import {
  type PackedMetadata,
  packedMetadata,
  planesToWrite,
  readPackedShapes,
  readPackedTensor,
} from "../files/packed_file.ts";
import { type TensorToWrite, writeSafetensors } from "../files/safetensors_writer.ts";
import { writeTextBeside } from "../host/atomic_file.ts";
import { parseJsonObject } from "../host/json.ts";
import { pathExists } from "../host/path_exists.ts";
import { quoteText } from "../host/quote_text.ts";
import { LINEAR_KINDS, type LinearKind, linearName } from "../llama/layer.ts";
import type { QuantizePlan } from "./quantize_layers.ts";
import type { StoredLayer } from "./quantizing_device.ts";

/** What layers are made with. */
export interface RunInputs extends Pick<QuantizePlan, "quantizerOf"> {
  /** Calibration windows; none for quantizers without error feedback. */
  readonly calibration: readonly Uint32Array[];
  /** What the file says of how it was made. */
  readonly metadata: PackedMetadata;
}

/** Settings of a run, and what else it says of itself. */
export type RunSettings = Readonly<Record<string, unknown>>;

export function layersDirectory(path: string): string {
  return `${path}.layers`;
}

/** File of that directory that says what its layers were made with. */
function statePath(path: string): string {
  return join(layersDirectory(path), "run.json");
}

export function layerPath(path: string, index: number): string {
  return join(layersDirectory(path), `layer-${index}.safetensors`);
}

/**
 * What layers that are resumed from must have been made with: metadata, the version of their format, and a hash of
 * calibration tokens and every quantizer.
 */
export function stateOf({ metadata, calibration, quantizerOf }: RunInputs, layers: number): string {
  const hash = createHash("sha256");
  for (const window of calibration) hash.update(window);
  for (let layer = 0; layer < layers; layer++) {
    hash.update(JSON.stringify(LINEAR_KINDS.map((kind) => quantizerOf(layer, kind) ?? null)));
  }
  return JSON.stringify({ ...metadata, formatVersion: FORMAT_VERSION, inputs: hash.digest("hex") });
}

/** What an interrupted run left of its state; undefined where it left nothing else. @throws {RangeError} without a run */
async function readState(path: string): Promise<string | undefined> {
  const directory = layersDirectory(path);
  if (await isHardlyStarted(directory)) return undefined;
  return await Deno.readTextFile(statePath(path)).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new RangeError(`${directory} holds no interrupted run, must be started without resuming`);
  });
}

/** Whether a run ended before it could say what it is: a directory without anything to go on with. */
async function isHardlyStarted(directory: string): Promise<boolean> {
  if (!await pathExists(directory)) return false;
  const files = await Array.fromAsync(Deno.readDir(directory));
  return files.every(({ name }) => name.startsWith("run.json.partial-"));
}

/** The settings that a state tells of. @throws {SyntaxError} */
function settingsOf(path: string, state: string): RunSettings {
  const { settings, ...rest } = parseJsonObject(statePath(path), state).fields;
  return { ...rest, ...parseJsonObject(`${statePath(path)}: settings`, String(settings)).fields };
}

/**
 * The settings of an interrupted run; undefined where it ended before it could say what it is.
 *
 * @throws {RangeError} where there was none
 */
export async function readInterrupted(path: string): Promise<RunSettings | undefined> {
  const state = await readState(path);
  return state === undefined ? undefined : settingsOf(path, state);
}

/** Refuses to go on with an interrupted run of other settings, by those that are known. @throws {RangeError} */
export function refuseOther(path: string, interrupted: RunSettings, wanted: RunSettings): void {
  const difference = describeDifference(interrupted, wanted, Object.keys(wanted));
  if (difference !== "") throw refusal(path, difference);
}

function describeDifference(before: RunSettings, now: RunSettings, keys: readonly string[]): string {
  const text = (value: unknown) => JSON.stringify(value) ?? "missing";
  const changes = keys.map((key) => ({ key, was: text(before[key]), is: text(now[key]) }));
  return changes.filter(({ was, is }) => was !== is).map(({ key, was, is }) => `${key} was ${was}, is ${is}`).join(
    "; ",
  );
}

function refusal(path: string, difference: string): RangeError {
  return new RangeError(`${layersDirectory(path)} was made with other settings or another checkpoint: ${difference}`);
}

/** Makes the directory of finished layers, or checks that it belongs to this run. */
export async function prepareLayers(path: string, resume: boolean, state: string): Promise<void> {
  const found = resume ? await readState(path) : undefined;
  if (found === state) return;
  if (found !== undefined) {
    const [before, now] = [settingsOf(path, found), settingsOf(path, state)];
    // The hash of calibration text and quantizers is named only where no setting says it.
    const keys = Object.keys({ ...before, ...now }).filter((key) => key !== "inputs");
    throw refusal(path, describeDifference(before, now, keys) || "calibration text or quantizers differ");
  }
  await removeLayers(path);
  await Deno.mkdir(layersDirectory(path), { recursive: true });
  await writeTextBeside(statePath(path), state);
}

/** Removes the directory of finished layers. @throws {Error} for one that holds anything else */
export async function removeLayers(path: string): Promise<void> {
  const directory = layersDirectory(path);
  if (!await pathExists(directory)) return;
  const files = await Array.fromAsync(Deno.readDir(directory));
  const ours = /^(run\.json|layer-\d+\.safetensors)(\.partial-\d+(-\d+)?)?$/;
  const other = files.find(({ name, isFile }) => !isFile || !ours.test(name));
  if (other) throw new Error(`${directory} holds ${quoteText(other.name)}, must hold nothing but layers to be removed`);
  for (const { name } of files) await Deno.remove(join(directory, name));
  await Deno.remove(directory);
}

/** Writes a finished layer. @throws {TypeError} when a quantizer doesn't write the packed format */
export async function writeStoredLayer(
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
export async function readStoredLayer(path: string, index: number, state: string): Promise<StoredLayer | undefined> {
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
