// Self-written text in a file beside the output, so that it is written once.
import { createHash } from "node:crypto";
import { writeTextBeside } from "../host/atomic_file.ts";

/** What a self-written text follows from, on one device. */
export interface SelfTextKey {
  readonly sourceSha256: string;
  /** sha256 of configuration, tokenizer and chat template. */
  readonly filesSha256: string;
  readonly seed: number;
  readonly windows: number;
  readonly windowTokens: number;
}

/** Counts up when the same key comes to mean another text. */
const VERSION = 2;

export function selfTextPath(path: string): string {
  return `${path}.self.json`;
}

/** Writes a text, whole or not at all. */
export async function writeCachedText(
  path: string,
  key: SelfTextKey,
  windows: readonly Uint32Array[],
): Promise<void> {
  const tokens = windows.map((window) => Array.from(window));
  await writeTextBeside(path, JSON.stringify({ ...describe(key), sha256: hashWindows(windows), tokens }));
}

/** Reads a text; undefined where the file is missing, of another key or not as it was written: it is then made anew. */
export async function readCachedText(path: string, key: SelfTextKey): Promise<Uint32Array<ArrayBuffer>[] | undefined> {
  const text = await Deno.readTextFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return "null";
    throw error;
  });
  const { sha256, tokens, ...found } = parse(text);
  if (JSON.stringify(found) !== JSON.stringify(describe(key)) || !Array.isArray(tokens)) return undefined;
  const windows = tokens.map((window) => Uint32Array.from(Array.isArray(window) ? window : []));
  return hashWindows(windows) === sha256 ? windows : undefined;
}

function describe({ sourceSha256, filesSha256, seed, windows, windowTokens }: SelfTextKey) {
  return { selfTextVersion: VERSION, sourceSha256, filesSha256, seed, windows, windowTokens };
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

function hashWindows(windows: readonly Uint32Array[]): string {
  const hash = createHash("sha256");
  for (const window of windows) hash.update(Uint32Array.of(window.length)).update(window);
  return hash.digest("hex");
}
