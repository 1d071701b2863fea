/**
 * Loading a model by name: the embedded checkpoint, a directory, a packed file, a GGUF file or a model of the hub.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { fromFileUrl } from "@std/path";
import { type Checkpoint, readModel } from "./files/checkpoint.ts";
import { openGguf } from "./files/gguf_checkpoint.ts";
import { type DownloadProgress, fetchModel } from "./hub/hub_model.ts";
import { parseHubName } from "./hub/hub_repo.ts";
import { readHubSettings } from "./hub/hub_settings.ts";
import { openDirectory } from "./files/open_directory.ts";
import { openPacked } from "./files/open_packed.ts";
import type { Model } from "./llama/llama.ts";
import { readFittingTokenizer, type Tokenizer } from "./text/tokenizer.ts";

/** A model in memory with its tokenizer and the identity of its weights. */
export interface LoadedModel {
  /** Name that it was loaded by. */
  readonly name: string;
  /** The weights. */
  readonly model: Model;
  /** The tokenizer. */
  readonly tokenizer: Tokenizer;
  /** sha256 of the weight files, one after the other, in hexadecimal. */
  readonly sha256: string;
}

/** Models that {@linkcode openModel} knows, for messages and help. */
export const MODEL_NAMES = "tiny, a directory, a packed file, a GGUF file or hf:ORG/NAME[@REVISION]";

/** Path of a model by name; a model of the hub is loaded into its cache first. */
export async function modelPath(name: string, onDownload?: DownloadProgress): Promise<string> {
  if (name === "tiny") return fromFileUrl(new URL("./tiny", import.meta.url));
  if (name.startsWith("hf:")) return await fetchModel(parseHubName(name), await readHubSettings(), onDownload);
  return name;
}

/**
 * Opens a model: a checkpoint directory, a packed file or a GGUF file.
 *
 * @throws {SyntaxError} when it is none of these
 */
export async function openModel(name: string, onDownload?: DownloadProgress): Promise<Checkpoint> {
  const path = await modelPath(name, onDownload);
  const info = await Deno.stat(path).catch(() => undefined);
  if (!info) throw new SyntaxError(`model ${path} does not exist, must be ${MODEL_NAMES}`);
  if (info.isDirectory) return await openDirectory(path);
  return path.endsWith(".gguf") ? await openGguf(path) : await openPacked(path);
}

/** Loads a model into memory as f32; packed tensors are decoded. @throws {SyntaxError} */
export async function loadModel(name: string, onDownload?: DownloadProgress): Promise<LoadedModel> {
  using checkpoint = await openModel(name, onDownload);
  const tokenizer = await readFittingTokenizer(checkpoint);
  return { name, model: await readModel(checkpoint), tokenizer, sha256: await hashWeights(checkpoint) };
}

/** Bytes that are hashed at a time. */
const HASH_BYTES = 8 * 2 ** 20;

/** sha256 of the weight files, one after the other, in hexadecimal. */
export async function hashWeights({ files }: Checkpoint): Promise<string> {
  const hash = createHash("sha256");
  const buffers = [new Uint8Array(HASH_BYTES), new Uint8Array(HASH_BYTES)];
  for (const path of files) {
    using file = await Deno.open(path);
    let reading = file.read(buffers[0]);
    // One buffer is hashed while the other is filled.
    for (let turn = 0;; turn = 1 - turn) {
      const count = await reading;
      if (count === null) break;
      reading = file.read(buffers[1 - turn]);
      hash.update(buffers[turn].subarray(0, count));
    }
  }
  return hash.digest("hex");
}
