/**
 * Loading a model by name: the embedded checkpoint or a directory.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { openCheckpoint, readModel } from "./checkpoint.ts";
import type { Model } from "./llama.ts";
import { readTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A model in memory with its tokenizer and the identity of its weights. */
export interface LoadedModel {
  readonly name: string;
  readonly directory: string;
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** sha256 of the weight files, one after the other, in hexadecimal. */
  readonly sha256: string;
}

/** Directory of a model by name: `tiny` is the embedded checkpoint, anything else a path. */
export function modelDirectory(name: string): string {
  return name === "tiny" ? new URL("./tiny", import.meta.url).pathname : name;
}

/**
 * Loads a model into memory as f32.
 *
 * @throws {SyntaxError} when the directory isn't a supported checkpoint, or its tokenizer has tokens that the model lacks
 */
export async function loadModel(name: string): Promise<LoadedModel> {
  const directory = modelDirectory(name);
  using checkpoint = await openCheckpoint(directory);
  const tokenizer = await readTokenizer(directory);
  const { vocabulary } = checkpoint.config;
  if (tokenizer.vocabulary > vocabulary) {
    throw new SyntaxError(
      `${directory}: the tokenizer has ${tokenizer.vocabulary} tokens, must have at most the model's ${vocabulary}`,
    );
  }
  const model = await readModel(checkpoint);
  return {
    name,
    directory,
    model,
    tokenizer,
    sha256: await hashFiles(checkpoint.files.map(({ source }) => source.name)),
  };
}

async function hashFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const path of paths) {
    using file = await Deno.open(path);
    for await (const chunk of file.readable) hash.update(chunk);
  }
  return hash.digest("hex");
}
