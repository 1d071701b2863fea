// Loading a model by name: the embedded checkpoint, a directory, a packed file, a GGUF file or a model of the hub.
import { createHash } from "node:crypto";
import { fromFileUrl } from "@std/path";
import { type Checkpoint, readModel } from "./files/checkpoint.ts";
import { openGguf } from "./files/gguf_checkpoint.ts";
import { isGguf } from "./files/gguf_file.ts";
import { type DownloadProgress, fetchModel } from "./hub/hub_model.ts";
import { parseHubName } from "./hub/hub_repo.ts";
import { readHubSettings } from "./hub/hub_settings.ts";
import { statPath } from "./host/path_exists.ts";
import { openDirectory } from "./files/open_directory.ts";
import { openPacked } from "./files/open_packed.ts";
import type { Model } from "./llama/llama.ts";
import { fitTokenizer, parseTokenizer, readTokenizerTexts, type Tokenizer } from "./text/tokenizer.ts";

export interface LoadedModel {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** sha256 of the weight files, one after the other, in hexadecimal. */
  readonly sha256: string;
}

/** Models that {@linkcode openModel} knows, for messages and help. */
export const MODEL_NAMES = "tiny, a directory, a packed file, a GGUF file or hf:ORG/NAME[@REVISION]";

/** Path of a model by name; a model of the hub is loaded into its cache first. */
export async function modelPath(name: string, onDownload?: DownloadProgress): Promise<string> {
  if (name === "tiny") return tinyPath();
  if (name.startsWith("hf:")) return await fetchModel(parseHubName(name), await readHubSettings(), onDownload);
  return name;
}

/** A model that is open: its configuration, its tensors, which are read when asked for, and its tokenizer. */
export interface OpenModel extends Checkpoint {
  /**
   * The tokenizer, made when it is first asked for.
   *
   * @throws {SyntaxError} when the model has none, or one that is malformed or has tokens that the model lacks
   */
  readonly tokenizer: Tokenizer;
}

/** Where the embedded model lies: in the repository, of whose package it is no part. @throws {SyntaxError} elsewhere */
function tinyPath(): string {
  const { protocol, href } = new URL("./tiny", import.meta.url);
  if (protocol === "file:") return fromFileUrl(href);
  throw new SyntaxError("model tiny is no part of the package, must be loaded from a clone of the repository");
}

/**
 * Opens a model, without a GPU: `tiny` (embedded in the repository), a checkpoint directory, a packed file, a GGUF file or
 * `hf:ORG/NAME[@REVISION]` of the Hugging Face hub. Only headers are read; dispose it to close its files.
 *
 * ```ts
 * import { openModel } from "@twobit/twobit";
 * import { assert } from "@std/assert";
 *
 * using model = await openModel("tiny");
 * const name = "model.layers.0.self_attn.q_proj.weight";
 * const [rows, channels] = model.shapes.get(name)!;
 * const lastRows = await model.readRows(name, rows - 2, 2);
 * assert(channels === model.config.hidden && lastRows.length === 2 * channels);
 * assert(model.tokenizer.decode(model.tokenizer.encode("Fellow citizens")) === "Fellow citizens");
 * ```
 *
 * @param onDownload told how far a model of the hub is loaded into its cache
 * @throws {SyntaxError} when it is none of these, or malformed
 */
export async function openModel(name: string, onDownload?: DownloadProgress): Promise<OpenModel> {
  const checkpoint = await openPath(await modelPath(name, onDownload));
  const texts = await readTokenizerTexts(checkpoint.readText);
  let tokenizer: Tokenizer | undefined;
  return {
    ...checkpoint,
    get tokenizer() {
      return tokenizer ??= fitTokenizer(checkpoint, parseTokenizer(checkpoint.name, texts));
    },
  };
}

async function openPath(path: string): Promise<Checkpoint> {
  const info = await statPath(path);
  if (!info) throw new SyntaxError(`model ${path} does not exist, must be ${MODEL_NAMES}`);
  if (info.isDirectory) return await openDirectory(path);
  return await isGguf(path) ? await openGguf(path) : await openPacked(path);
}

/** Loads a model into memory as f32; packed tensors are decoded. @throws {SyntaxError} */
export async function loadModel(name: string, onDownload?: DownloadProgress): Promise<LoadedModel> {
  using checkpoint = await openModel(name, onDownload);
  const { tokenizer } = checkpoint;
  return { model: await readModel(checkpoint), tokenizer, sha256: await hashWeights(checkpoint) };
}

/** The identity of weight files that are read for a long time. */
export interface WatchedWeights {
  readonly sha256: string;
  /**
   * Fails where a file has become another: by size, inode and times, and where those differ by sha256.
   *
   * @throws {Error}
   */
  check(): Promise<void>;
}

/** Hashes the weight files of a checkpoint, and notices later whether they changed. */
export async function watchWeights(checkpoint: Checkpoint): Promise<WatchedWeights> {
  const describe = async (path: string) => {
    const { dev, ino, size, mtime, ctime } = await Deno.stat(path);
    return JSON.stringify([dev, ino, size, mtime, ctime]);
  };
  const before = await Promise.all(checkpoint.files.map(describe));
  const sha256 = await hashWeights(checkpoint);
  return {
    sha256,
    async check() {
      const changed = [];
      for (const [i, path] of checkpoint.files.entries()) {
        if (await describe(path).catch(() => "gone") !== before[i]) changed.push(path);
      }
      if (changed.length === 0 || await hashWeights(checkpoint).catch(() => "gone") === sha256) return;
      throw new Error(`${changed[0]} changed while it was read, must stay as it is`);
    },
  };
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
