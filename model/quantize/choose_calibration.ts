// What a model is calibrated on where nobody says it, and what was calibrated on in the end.
import { OutOfMemoryError } from "../../kernels/gpu/device_errors.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import {
  CALIBRATION_SIZES,
  type CalibrationSize,
  calibrationSize,
  type QuantizeMethod,
  RANDOM_SIZES,
  SELF_WRITTEN_WEIGHTS,
} from "../../quant/recipe.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { linearWeights } from "../llama/layer.ts";
import { RANDOM_TOKENS, readCalibration } from "./calibration_text.ts";
import { streamBytes } from "./device_stream.ts";
import type { RunSettings } from "./finished_layers.ts";

/** What is calibrated on. */
export interface CalibrationOptions {
  /**
   * `mix` (encyclopedia, documentation, code and prose) or `calibration` (speeches and chapters), which come with
   * twobit; `self`, what the model writes itself on the GPU; `wikitext2` (its train split) or `c4` from the hub;
   * `file:PATH`; or several of them joined by `+`: `self` then has a quarter of the windows, the others share the rest
   * equally. The default is `mix`, on a GPU that isn't a software one `mix+self` up to 20 billion weights; for the embedded
   * model, which was trained on such speeches, `calibration`.
   */
  readonly text?: string;
  /**
   * Windows, spread evenly over the text: by default 448 on a GPU that isn't a software one, 128 from a billion weights
   * on or where there is no room for as many, else 40.
   */
  readonly windows?: number;
  /** Tokens of a window, BOS included, by default 512; at most the model's context. */
  readonly windowTokens?: number;
  /** The tokens of each window, in place of a text. */
  readonly tokens?: readonly Uint32Array[];
}

/** What a model is calibrated on. */
export interface UsedCalibration {
  /** Names of texts, or `tokens` or `random tokens`. */
  readonly calibration: string;
  /** Tokens of all windows; those that windows of a short text have in common count in each. */
  readonly tokens: number;
  /** Why the model wrote none of it itself, where the default has it do so. */
  readonly reason?: string;
  /** Why there are fewer windows than by default. */
  readonly whyFewer?: string;
}

/** What a packed file records of the text that was calibrated on. */
export interface CalibrationSettings extends CalibrationSize {
  readonly calibration: string;
}

/** What an interrupted run took as its text and can be had again: what nobody asks for otherwise is gone on with. */
export function calibrationOf(interrupted: RunSettings | undefined): CalibrationOptions {
  const { calibration: text, windows, windowTokens } = interrupted ?? {};
  if (typeof text !== "string" || typeof windows !== "number" || typeof windowTokens !== "number") return {};
  return text === GIVEN_TOKENS || text === RANDOM_TOKENS ? {} : { text, windows, windowTokens };
}

/** What stands for a text where tokens are given. */
const GIVEN_TOKENS = "tokens";

/** What is asked for, and where. */
export interface CalibrationChoice {
  readonly method: QuantizeMethod;
  readonly given: CalibrationOptions | undefined;
  /** Whether it is the embedded model, which has a text of its own kind. */
  readonly isTiny: boolean;
  /** Whether a GPU quantizes that isn't a software one. */
  readonly isRealGpu: boolean;
  readonly gpu: Gpu | undefined;
  readonly path: string;
  readonly seed: number;
  readonly sourceSha256: string;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((share: number, step: string) => void) | undefined;
  readonly onCalibration: ((used: UsedCalibration) => void) | undefined;
}

/**
 * Reads or writes what is calibrated on: as given, else by the model and the place.
 *
 * @throws {RangeError} for tokens that the model lacks, or a text that is too short
 */
export async function chooseCalibration(
  checkpoint: Checkpoint,
  choice: CalibrationChoice,
): Promise<{ text: CalibrationSettings; windows: readonly Uint32Array[] }> {
  const { tokens } = choice.given ?? {};
  if (tokens && choice.method !== "search") {
    checkTokens(tokens, checkpoint);
    const longest = tokens.reduce((longest, { length }) => Math.max(longest, length), 0);
    return report({ calibration: GIVEN_TOKENS, windows: tokens.length, windowTokens: longest }, tokens);
  }
  const { size, ...why } = await chooseSize(checkpoint, choice);
  const { wanted, instead } = settingsOf(checkpoint, choice, size);
  const read = (text: CalibrationSettings) =>
    readCalibration(checkpoint, { ...choice, ...text, onProgress: (step) => choice.onProgress?.(0, step) });
  try {
    return report(wanted, await read(wanted), why);
  } catch (error) {
    if (!instead || choice.signal?.aborted) throw error;
    // A model that is quantized layer by layer may be too large for the device to write, or have weights beyond f16.
    return report(instead, await read(instead), { ...why, reason: (error as Error).message });
  }

  type Why = Pick<UsedCalibration, "reason" | "whyFewer">;
  function report(text: CalibrationSettings, windows: readonly Uint32Array[], why: Why = {}) {
    const tokens = windows.reduce((sum, { length }) => sum + length, 0);
    choice.onCalibration?.({ calibration: text.calibration, tokens, ...why });
    return { text, windows };
  }
}

/** How much text there is: as asked for, else by the model, the place and the room there. */
async function chooseSize(
  { config }: Checkpoint,
  { method, given: { windows, windowTokens } = {}, isRealGpu, gpu }: CalibrationChoice,
): Promise<{ readonly size: CalibrationSize; readonly whyFewer?: string }> {
  const weights = linearWeights(config);
  const standard = method === "search" ? RANDOM_SIZES[isRealGpu ? "gpu" : "cpu"] : calibrationSize(isRealGpu, weights);
  const size = { windows: windows ?? standard.windows, windowTokens: windowTokens ?? standard.windowTokens };
  if (windows !== undefined || standard !== CALIBRATION_SIZES.gpuSmall || !gpu) return { size };
  const models = method === "corrected" ? 2 : 1;
  const text = models * streamBytes(config, size.windows * Math.min(size.windowTokens, config.context));
  // Beside the text there are at most two layers in f16 at a time.
  const bytes = text + 4 * weights / config.layers;
  try {
    await gpu.checkRoom(`a text of ${size.windows} windows`, bytes);
    return { size };
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    return { size: { ...size, windows: CALIBRATION_SIZES.gpu.windows }, whyFewer: error.message };
  }
}

/** The text; by default also what is taken where the model can't write. */
function settingsOf(
  checkpoint: Checkpoint,
  { method, given: { text } = {}, isTiny, isRealGpu }: CalibrationChoice,
  size: CalibrationSize,
): { readonly wanted: CalibrationSettings; readonly instead?: CalibrationSettings } {
  const weights = linearWeights(checkpoint.config);
  const settings = (calibration: string) => ({ calibration, ...size });
  if (method === "search") return { wanted: settings(RANDOM_TOKENS) };
  if (text !== undefined) return { wanted: settings(text) };
  if (isTiny) return { wanted: settings("calibration") };
  if (!isRealGpu || weights > SELF_WRITTEN_WEIGHTS) return { wanted: settings("mix") };
  return { wanted: settings("mix+self"), instead: settings("mix") };
}

function checkTokens(tokens: readonly Uint32Array[], { config: { vocabulary } }: Checkpoint): void {
  const bad = tokens.flatMap((window) => window.find((token) => token >= vocabulary) ?? []);
  if (bad.length > 0) throw new RangeError(`calibration has token ${bad[0]}, must be below ${vocabulary}`);
}
