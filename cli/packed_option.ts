// The option that names a packed file, and whether the file belongs to a model.
import { equal } from "@std/assert";
import { type ModelConfig, parseConfig } from "../model/llama/config.ts";
import { fetchFile } from "../model/hub/hub_download.ts";
import { hubFile, openSnapshot, parseHubName } from "../model/hub/hub_repo.ts";
import { readHubSettings } from "../model/hub/hub_settings.ts";
import { openModel } from "../model/load.ts";
import { openPacked } from "../model/files/open_packed.ts";
import type { PackedCheckpoint } from "../model/files/packed_checkpoint.ts";

/**
 * Fails unless `--quantized` names a packed file, of the model that `--model` names where it is given.
 *
 * @throws {SyntaxError}
 */
export async function checkQuantized(path: string, model: string | undefined): Promise<void> {
  const config = await readPackedConfig(path);
  if (model === undefined) return;
  const difference = describeDifference(config, await readModelConfig(model));
  if (difference) throw new SyntaxError(`--quantized is ${path}, must be packed from --model ${model}: ${difference}`);
}

async function readPackedConfig(path: string): Promise<ModelConfig> {
  using checkpoint = await openPackedOption("quantized", path);
  return checkpoint.config;
}

/** Opens the packed file that an option names. @throws {SyntaxError} that says what else it is */
export async function openPackedOption(option: string, path: string): Promise<PackedCheckpoint> {
  try {
    return await openPacked(path);
  } catch (cause) {
    throw new SyntaxError(`--${option} is ${path}, must be a packed file: ${(cause as Error).message}`, { cause });
  }
}

/** Configuration of a model; of one of the hub without its weights. */
async function readModelConfig(name: string): Promise<ModelConfig> {
  if (name.startsWith("hf:")) {
    const settings = await readHubSettings();
    const snapshot = await openSnapshot(parseHubName(name), settings);
    const path = snapshot.files
      ? await fetchFile(snapshot, hubFile(snapshot, "config.json"), settings)
      : `${snapshot.directory}/config.json`;
    return parseConfig(`${name}, config.json`, await Deno.readTextFile(path));
  }
  using checkpoint = await openModel(name);
  return checkpoint.config;
}

/** The first field in which two configurations differ. */
function describeDifference(packed: ModelConfig, model: ModelConfig): string | undefined {
  const fields = new Set([...Object.keys(packed), ...Object.keys(model)]) as Set<keyof ModelConfig>;
  const other = [...fields].find((field) => !equal(packed[field], model[field]));
  return other && `its ${other} is ${JSON.stringify(packed[other])}, the model's is ${JSON.stringify(model[other])}`;
}
