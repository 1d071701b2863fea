/**
 * What a model is calibrated on where nobody says it, and what was calibrated on in the end.
 *
 * @module
 */
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import {
  type CalibrationSize,
  calibrationSize,
  type QuantizeMethod,
  RANDOM_SIZES,
  SELF_WRITTEN_WEIGHTS,
} from "../../quant/recipe.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import { linearWeights } from "../llama/layer.ts";
import { RANDOM_TOKENS, readCalibration } from "./calibration_text.ts";

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
  /** Windows, spread evenly over the text: by default 448 on a GPU that isn't a software one, 128 from a billion weights on, else 40. */
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
  /** Tokens of all windows. */
  readonly tokens: number;
  /** Why the model wrote none of it itself, where the default has it do so. */
  readonly reason?: string;
}

/** What a packed file records of the text that was calibrated on. */
export interface CalibrationSettings extends CalibrationSize {
  readonly calibration: string;
}

/** What is asked for, and where. */
export interface CalibrationChoice {
  readonly method: QuantizeMethod;
  readonly given: CalibrationOptions | undefined;
  /** Whether it is the embedded model, which has a text of its own kind. */
  readonly isTiny: boolean;
  /** Whether a GPU quantizes that isn't a software one. */
  readonly isRealGpu: boolean;
  /** The GPU that quantizes, where one does. */
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
    return report({ calibration: "tokens", windows: tokens.length, windowTokens: longest }, tokens);
  }
  const { wanted, instead } = settingsOf(checkpoint, choice);
  const read = (text: CalibrationSettings) =>
    readCalibration(checkpoint, { ...choice, ...text, onProgress: (step) => choice.onProgress?.(0, step) });
  try {
    return report(wanted, await read(wanted));
  } catch (error) {
    if (!instead || choice.signal?.aborted) throw error;
    // A model that is quantized layer by layer may be too large for the device to write, or have weights beyond f16.
    return report(instead, await read(instead), (error as Error).message);
  }

  function report(text: CalibrationSettings, windows: readonly Uint32Array[], reason?: string) {
    const tokens = windows.reduce((sum, { length }) => sum + length, 0);
    choice.onCalibration?.({ calibration: text.calibration, tokens, ...(reason && { reason }) });
    return { text, windows };
  }
}

/** The text and its size; by default also what is taken where the model can't write. */
function settingsOf(
  checkpoint: Checkpoint,
  { method, given: { text, windows, windowTokens } = {}, isTiny, isRealGpu }: CalibrationChoice,
): { readonly wanted: CalibrationSettings; readonly instead?: CalibrationSettings } {
  const weights = linearWeights(checkpoint.config);
  const size = method === "search" ? RANDOM_SIZES[isRealGpu ? "gpu" : "cpu"] : calibrationSize(isRealGpu, weights);
  const settings = (calibration: string) => ({
    calibration,
    windows: windows ?? size.windows,
    windowTokens: windowTokens ?? size.windowTokens,
  });
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
