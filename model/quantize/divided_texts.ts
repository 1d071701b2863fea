// Texts of which one part calibrates and another, which was not calibrated on, is evaluated.
import { basename } from "@std/path";
import type { Checkpoint } from "../files/checkpoint.ts";
import { SELF } from "../text/calibration_names.ts";
import { loadText } from "../text/text.ts";
import { readFittingTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { cutWindows, joinTokens, sampleWindows } from "../text/windows.ts";
import { type CalibrationPlan, readCalibration } from "./calibration_text.ts";

export interface DividedText {
  readonly name: string;
  /** What the two parts are. */
  readonly parts: string;
  readonly calibrating: readonly Uint32Array[];
  /** Of any text the part that calibrates, whole. */
  readonly calibratingText?: string;
  readonly evaluated: readonly Uint32Array<ArrayBuffer>[];
}

/** Numbers of windows. */
export interface DividedSizes {
  /** Calibrated on, of each text. */
  readonly calibrating: number;
  /** Evaluated, of a run's own text and of each other. */
  readonly evaluated: number;
  readonly others: number;
}

interface DividingPlan extends DividedSizes, Omit<CalibrationPlan, "calibration" | "windows" | "signal"> {
  /** Name of the run's own text. */
  readonly textName: string;
  /** Whether the model writes a text too, on a GPU. */
  readonly writes: boolean;
}

/** Windows of one text. */
interface Wanted {
  readonly length: number;
  readonly calibrating: number;
  readonly evaluated: number;
}

const SPEECHES = "sotu";
/** Names of what is divided beside the run's own text. */
const OTHERS: readonly string[] = ["speeches", "mix", SELF];
/** A standard error takes as many windows. */
const LEAST_EVALUATED = 2;

/**
 * The run's own text, speeches, the mix and, if wanted, what the model writes, each with as many windows to calibrate on: fewer than
 * wanted where the run's text has fewer. A model that can't write leaves its text out.
 *
 * @returns the texts, and why there is none of the model's own where one was wanted
 * @throws {RangeError} when a text is too short, or named as another
 */
export async function divideTexts(
  checkpoint: Checkpoint,
  plan: DividingPlan,
): Promise<{ readonly texts: readonly DividedText[]; readonly whyNotSelf?: string }> {
  const { textName, calibrating, evaluated } = plan;
  if (OTHERS.includes(basename(textName))) {
    throw new RangeError(`text ${textName} must not be named ${OTHERS.join(", ")}`);
  }
  const tokenizer = await readFittingTokenizer(checkpoint);
  const own = { length: Math.min(plan.windowTokens, checkpoint.config.context), calibrating, evaluated };
  const run = textName === SPEECHES ? [] : [await divideTokens(tokenizer, textName, own)];
  const others = { ...own, calibrating: run[0]?.calibrating.length ?? calibrating, evaluated: plan.others };
  const texts = [
    ...run,
    await divideSpeeches(tokenizer, textName === SPEECHES ? own : others),
    await divideMix(tokenizer, others),
  ];
  for (const { name, evaluated: { length } } of texts) {
    if (length >= LEAST_EVALUATED) continue;
    throw new RangeError(`text ${name} has ${length} windows to evaluate, must have at least ${LEAST_EVALUATED}`);
  }
  if (!plan.writes) return { texts };
  try {
    return { texts: [...texts, await divideSelf(checkpoint, plan, others)] };
  } catch (error) {
    // As quantizing goes on: the model may be too large for the device to write, or have weights beyond f16.
    return { texts, whyNotSelf: `left out, as the model can't write: ${(error as Error).message}` };
  }
}

/** Any text: its first quarter calibrates. */
async function divideTokens(tokenizer: Tokenizer, name: string, wanted: Wanted): Promise<DividedText> {
  const text = await loadText(name);
  const tokens = joinTokens(text, tokenizer);
  const quarter = Math.floor(tokens.length / 4);
  const cut = (tokens: Uint32Array<ArrayBuffer>, count: number) =>
    cutWindows(text, tokens, tokenizer, { ...wanted, count }).windows;
  return {
    name: basename(name),
    parts: "the first quarter; the rest",
    calibratingText: tokenizer.decode(tokens.subarray(tokenizer.prefix.length, quarter)),
    calibrating: cut(tokens.subarray(0, quarter), wanted.calibrating),
    evaluated: cut(tokens.subarray(quarter), wanted.evaluated),
  };
}

async function divideSpeeches(tokenizer: Tokenizer, { length, calibrating, evaluated }: Wanted): Promise<DividedText> {
  const heldOut = await loadText(SPEECHES);
  const others = await loadText("calibration");
  return {
    name: "speeches",
    parts: "speeches and chapters of Moby Dick, none of them held out; speeches that are held out",
    calibrating: sampleWindows(others, tokenizer, { length, count: calibrating }).windows,
    evaluated: cutWindows(heldOut, joinTokens(heldOut, tokenizer), tokenizer, { length, count: evaluated }).windows,
  };
}

/** The mix: of each source the last eighth is evaluated. */
async function divideMix(tokenizer: Tokenizer, { length, calibrating, evaluated }: Wanted): Promise<DividedText> {
  const mix = await loadText("mix");
  const sample = (from: number, to: number, count: number) => {
    const documents = mix.documents.map((source) => source.slice(from * source.length, to * source.length));
    return sampleWindows({ ...mix, documents }, tokenizer, { length, count }).windows;
  };
  return {
    name: mix.name,
    parts: "all but the last eighth of each source; that eighth",
    calibrating: sample(0, 7 / 8, calibrating),
    evaluated: sample(7 / 8, 1, evaluated),
  };
}

async function divideSelf(
  checkpoint: Checkpoint,
  plan: DividingPlan,
  { calibrating, evaluated }: Wanted,
): Promise<DividedText> {
  const windows = calibrating + evaluated;
  const written = await readCalibration(checkpoint, { ...plan, calibration: SELF, windows, signal: undefined });
  return {
    name: SELF,
    parts: "what the model writes at temperature 1; more of it",
    calibrating: written.slice(0, calibrating),
    evaluated: written.slice(calibrating).map((window) => new Uint32Array(window)),
  };
}
