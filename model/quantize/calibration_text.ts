// What a model is calibrated on: texts by name, what it writes itself, and random tokens.
import { createHash } from "node:crypto";
import { createRandom } from "../../quant/random.ts";
import { type CalibrationSize, SELF_WRITTEN_SHARE } from "../../quant/recipe.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { createEngine } from "../engine/engine.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { CARRIED_FILES } from "../files/packed_checkpoint.ts";
import { removePartials } from "../host/atomic_file.ts";
import { loadCalibrationText } from "../text/text.ts";
import { SELF, splitCalibration } from "../text/calibration_names.ts";
import { readFittingTokenizer } from "../text/tokenizer.ts";
import { countWindows, sampleWindows, type WindowPlan } from "../text/windows.ts";
import { takeTurns, writeSelfText } from "./self_text.ts";
import { readCachedText, type SelfTextKey, selfTextPath, writeCachedText } from "./self_text_cache.ts";

export interface CalibrationPlan extends CalibrationSize {
  /** Names joined by `+`, or {@linkcode RANDOM_TOKENS}. */
  readonly calibration: string;
  readonly seed: number;
  /** Output file, beside which self-written text is kept. */
  readonly path: string;
  readonly sourceSha256: string;
  /** Where the model writes; by default it opens a device of its own. */
  readonly gpu: Gpu | undefined;
  readonly onProgress: (step: string) => void;
  /** Ends the writing with its reason. */
  readonly signal: AbortSignal | undefined;
}

/** What stands for a text where there is none. */
export const RANDOM_TOKENS = "random tokens";

/**
 * The windows to calibrate on. Texts share them as {@linkcode shareWindows} says; windows of one that is too short for
 * its share overlap, and where that isn't enough ({@linkcode countWindows}) it gives fewer.
 *
 * @throws {RangeError} for names that aren't known, or a text shorter than a window
 * @throws {OutOfMemoryError} when the device has no room for the model that is to write
 */
export async function readCalibration(checkpoint: Checkpoint, plan: CalibrationPlan): Promise<Uint32Array[]> {
  const { context, vocabulary } = checkpoint.config;
  const length = Math.min(plan.windowTokens, context);
  if (plan.calibration === RANDOM_TOKENS) return randomWindows({ length, count: plan.windows }, vocabulary, plan.seed);
  const parts = [];
  for (const [name, count] of shareWindows(splitCalibration(plan.calibration), plan.windows)) {
    if (count === 0) continue;
    const wanted = { length, count };
    parts.push(await (name === SELF ? selfWritten(checkpoint, wanted, plan) : sampleText(checkpoint, name, wanted)));
  }
  return takeTurns(parts);
}

/** Windows of a text, which overlap where it is short. */
async function sampleText(
  checkpoint: Checkpoint,
  name: string,
  { length, count }: WindowPlan,
): Promise<readonly Uint32Array[]> {
  const [text, tokenizer] = [await loadCalibrationText(name), await readFittingTokenizer(checkpoint)];
  return sampleWindows(text, tokenizer, { length, count: countWindows(text, tokenizer, { length, count }) }).windows;
}

/** Windows of each text: self-written text beside others has a quarter of all, and what is left is shared equally. */
export function shareWindows(names: readonly string[], windows: number): Map<string, number> {
  const others = names.filter((name) => name !== SELF);
  const own = others.length === names.length
    ? 0
    : others.length === 0
    ? windows
    : Math.round(SELF_WRITTEN_SHARE * windows);
  const part = (index: number) => Math.ceil((windows - own - index) / others.length);
  return new Map(names.map((name) => [name, name === SELF ? own : part(others.indexOf(name))]));
}

/** Tokens at random, all of them equally likely: they tell loud channels from quiet ones, as any text does. */
function randomWindows({ length, count }: WindowPlan, vocabulary: number, seed: number): Uint32Array[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => Uint32Array.from({ length }, () => random.integer(vocabulary)));
}

/** What the model writes, or what an earlier run kept of it beside the output. */
async function selfWritten(
  checkpoint: Checkpoint,
  window: WindowPlan,
  { path, sourceSha256, seed, gpu, onProgress, signal }: CalibrationPlan,
): Promise<Uint32Array<ArrayBuffer>[]> {
  const { count: windows, length: windowTokens } = window;
  const key: SelfTextKey = { sourceSha256, filesSha256: await hashFiles(checkpoint), seed, windows, windowTokens };
  const cached = await readCachedText(selfTextPath(path), key);
  if (cached) return cached;
  signal?.throwIfAborted();
  onProgress("loading the model that writes its calibration text");
  using engine = await createEngine(checkpoint, { ...(gpu && { gpu }) });
  const written = await writeSelfText(engine, {
    ...window,
    seed,
    ...(signal && { signal }),
    onProgress: (full) => onProgress(`window ${full} of ${windows} of self-written calibration text`),
  });
  // Whoever writes the output has its lock, and with it this file.
  await removePartials(selfTextPath(path));
  await writeCachedText(selfTextPath(path), key, written);
  return written;
}

/** sha256 of what makes tokens and prompts of a text. */
async function hashFiles({ readText }: Checkpoint): Promise<string> {
  const hash = createHash("sha256");
  for (const file of CARRIED_FILES) hash.update(JSON.stringify([file, await readText(file) ?? null]));
  return hash.digest("hex");
}
