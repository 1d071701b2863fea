// Packed files as people get them from `quantize`, which `calibration` measures beside its texts.
import { join } from "@std/path";
import { isPacked } from "../../model/files/packed_checkpoint.ts";
import { linearWeights } from "../../model/llama/layer.ts";
import { hashWeights, openModel } from "../../model/load.ts";
import type { DividedText } from "../../model/quantize/divided_texts.ts";
import { splitJoined } from "../../model/text/calibration_names.ts";
import { CHARACTERS_PER_TOKEN } from "../../model/text/windows.ts";
import { CALIBRATION_SIZES, isImproved } from "../../quant/recipe.ts";
import type { ExperimentContext } from "../experiment.ts";
import type { Inputs } from "../models/model_place.ts";
import { describeFile, pathOfText, withoutDirectories } from "../provenance.ts";
import type { Findings } from "../results/result.ts";

/** A packed file that is measured on the run's own text. */
export interface FileCase {
  readonly name: string;
  /** What it is, in words. */
  readonly said: string;
  readonly inputs: Inputs;
}

/**
 * The packed file that the run was given, before anything is measured; none without a GPU.
 *
 * @throws {Error} where it isn't made of the run's model
 */
export async function openGiven(context: ExperimentContext): Promise<FileCase | undefined> {
  const { quantizedName: path, textName } = context;
  const { gpu } = await context.place();
  if (path === undefined || !gpu) return undefined;
  const { checkpoint, sha256 } = await context.opened();
  using packed = await openModel(path);
  if (!isPacked(packed)) throw new SyntaxError(`${path} is not packed, must be to be scored as such`);
  const { source_sha256: source, settings = "{}" } = packed.file.metadata;
  if (source !== sha256) {
    const [of, is] = [source?.slice(0, 16) ?? "unknown", describeFile(checkpoint.name, sha256)];
    throw new Error(`${path} is made of a model with sha256 ${of}, must be made of ${is} to be compared with it`);
  }
  const hash = await hashWeights(packed);
  const { method, calibration, windows, windowTokens, densities, tuning } = JSON.parse(settings);
  const calibratedOn = withoutDirectories(calibration);
  return {
    name: `quantize: ${calibratedOn}`,
    said: `${describeFile(path, hash)}: ${method}, ${windows} windows of ${windowTokens} tokens of ${calibratedOn}, ` +
      `densities ${densities}, ${tuning ? "tuned" : "untuned"}` +
      (hasSeen(calibration, textName) ? "; has seen what is evaluated" : ""),
    inputs: { path, sha256: hash },
  };
}

/** Whether a calibration names the file of an evaluation text, which the two may find by different directories. */
function hasSeen(calibration: string, textName: string): boolean {
  const fileOf = (name: string) => pathOfText(withoutDirectories(name));
  const file = fileOf(textName);
  return file !== undefined && splitJoined(calibration).some((name) => fileOf(name) === file);
}

/**
 * What people get from `quantize`: the file that the run was given, and on a GPU that isn't a software one, for a model
 * that is then tuned, one without a text and one for which there is a text of the kind that is evaluated, put into a
 * directory. What is left out, and why, are settings.
 */
export async function findFiles(
  context: ExperimentContext,
  { name: text, calibratingText }: DividedText,
  directory: string,
  given: FileCase | undefined,
): Promise<{ readonly files: readonly FileCase[]; readonly leftOut: Findings["settings"] }> {
  const { isRealGpu } = await context.place();
  const { checkpoint } = await context.opened();
  const files = given ? [given] : [];
  const leftOut: Record<string, string> = {};
  if (context.quantizedName !== undefined && !given) leftOut["packed file"] = "left out, needs a GPU";
  const isTuned = isImproved(isRealGpu, linearWeights(checkpoint.config), "corrected");
  if (context.quick || !isTuned || isPacked(checkpoint)) return { files, leftOut };
  if (calibratingText !== undefined) {
    // No name that a given file can have.
    const name = "quantize: first quarter+mix";
    const characters = CHARACTERS_PER_TOKEN * Math.min(CALIBRATION_SIZES.gpu.windowTokens, checkpoint.config.context);
    if (calibratingText.length < characters) {
      leftOut[name] = `left out: the quarter has ${calibratingText.length} characters, must have ${characters}`;
    } else {
      const path = join(directory, "first_quarter.txt");
      await Deno.writeTextFile(path, calibratingText);
      files.push({
        name,
        said: `quantize --calibration file:PATH+mix, of ${text} the quarter that calibrates`,
        inputs: { asked: { calibration: { text: `file:${path}+mix` } } },
      });
    }
  }
  files.push({
    name: "quantize: search",
    said: "quantize --method search, without a text",
    inputs: { asked: { method: "search" } },
  });
  return { files, leftOut };
}
