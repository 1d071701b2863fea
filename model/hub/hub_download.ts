// Downloading a file of the hub into its cache: resumed after an interruption, its size and hash checked before it
// appears under its name. @huggingface/hub's own download into the cache does neither, so only its requests are used.
import { createHash, type Hash } from "node:crypto";
import { dirname, join, relative } from "@std/path";
import { downloadFile, fileDownloadInfo } from "@huggingface/hub";
import { asking, describeRepo, type HubFile, type HubSnapshot, HubUnreachable } from "./hub_repo.ts";
import type { HubSettings } from "./hub_settings.ts";
import { unfinished } from "../host/atomic_file.ts";
import { pathExists, statPath } from "../host/path_exists.ts";
import { clipText } from "../host/quote_text.ts";

/** Tries of a download whose connection breaks. */
const TRIES = 5;

/** A connection that brings less counts as broken. */
const MIN_BYTES_PER_MS = 1;

/** A connection that broke: worth another try. */
class Interruption extends Error {}

/**
 * Downloads a file unless it is in the cache.
 *
 * @param onBytes told of the bytes that are there
 * @returns its path in the snapshot
 * @throws {Error} when the connection breaks again and again; what was loaded stays for the next time
 * @throws {SyntaxError} when the size or the hash isn't what the hub says; what was loaded is removed
 */
export async function fetchFile(
  snapshot: HubSnapshot,
  file: HubFile,
  settings: HubSettings,
  onBytes: (bytes: number) => void = () => {},
): Promise<string> {
  const pointer = join(snapshot.directory, file.path);
  if (await pathExists(pointer)) return await checkPlace(pointer, snapshot);
  const blob = join(snapshot.storage, "blobs", file.hash);
  await Deno.mkdir(dirname(blob), { recursive: true });
  await Deno.mkdir(dirname(pointer), { recursive: true });
  if (!await pathExists(blob)) await fetchBlob(blob, snapshot, file, settings, onBytes);
  await link(blob, pointer);
  return pointer;
}

/** A file that is there must lie in its repository's part of the cache, wherever links lead. @throws {Error} */
export async function checkPlace(pointer: string, { storage }: HubSnapshot): Promise<string> {
  const [real, place] = [await Deno.realPath(pointer), await Deno.realPath(storage)];
  if (!relative(place, real).startsWith("..")) return pointer;
  throw new Error(`${pointer} is a link to ${real}, must lead nowhere outside ${storage}; remove it`);
}

/** Links a snapshot's file to its blob, as Python's huggingface_hub does: at once, so that nobody meets half of it. */
async function link(blob: string, pointer: string): Promise<void> {
  // Left over by a process that was killed, a name of its own is in nobody's way.
  const partial = `${pointer}.partial-${crypto.randomUUID()}`;
  unfinished.add(partial);
  try {
    await Deno.symlink(relative(dirname(pointer), blob), partial);
    await Deno.rename(partial, pointer);
  } finally {
    unfinished.delete(partial);
  }
}

/** Opens a partial file for this caller alone; undefined where another finished the blob meanwhile. */
async function openPartial(partial: string, blob: string): Promise<Deno.FsFile | undefined> {
  while (true) {
    const file = await Deno.open(partial, { read: true, write: true, create: true });
    await file.lock(true);
    const [own, there] = [await file.stat(), await statPath(partial)];
    // Whoever had the lock before may have renamed or removed the file.
    const isThere = own.ino === there?.ino && own.dev === there.dev;
    const isDone = await pathExists(blob);
    if (isThere && !isDone) return file;
    if (isThere) await Deno.remove(partial);
    file.close();
    if (isDone) return undefined;
  }
}

async function fetchBlob(
  blob: string,
  snapshot: HubSnapshot,
  file: HubFile,
  settings: HubSettings,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const partial = `${blob}.incomplete`;
  using output = await openPartial(partial, blob);
  if (!output) return;
  for (let attempt = 1;; attempt++) {
    try {
      await continueFile(output, snapshot, file, settings, onBytes);
      break;
    } catch (error) {
      if (error instanceof SyntaxError) await Deno.remove(partial);
      if (!(error instanceof Interruption || error instanceof HubUnreachable)) throw error;
      if (attempt === TRIES) {
        throw new Error(
          `${describeRepo(snapshot.repo)}: the download of ${file.path} broke off ${TRIES} times (${
            clipText(error.message)
          }); ` +
            "run the command again to go on with it",
          { cause: error },
        );
      }
      await new Promise((wake) => setTimeout(wake, settings.retryDelayMs * 2 ** (attempt - 1)));
    }
  }
  await output.sync();
  await Deno.rename(partial, blob);
}

/** Loads what a file still lacks and checks the whole. */
async function continueFile(
  output: Deno.FsFile,
  { repo, commit }: HubSnapshot,
  { path, sizeBytes, hash }: HubFile,
  settings: HubSettings,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const name = `${describeRepo(repo)}: ${path}`;
  let { size: done } = await output.stat();
  if (done > sizeBytes) await output.truncate(done = 0);
  const digest = hashStart(hash, sizeBytes);
  await output.seek(0, Deno.SeekMode.Start);
  await hashFile(output, digest);
  const resumed = done > 0;
  for await (const chunk of streamFrom(repo, commit, path, settings, done, sizeBytes)) {
    done += chunk.length;
    if (done > sizeBytes) throw new SyntaxError(`${name} goes on beyond its ${sizeBytes} bytes`);
    digest.update(chunk);
    for (let at = 0; at < chunk.length;) at += await output.write(chunk.subarray(at));
    onBytes(done);
  }
  if (done < sizeBytes) throw new Interruption(`it ended at byte ${done} of ${sizeBytes}`);
  const found = digest.digest("hex");
  if (found === hash) return;
  if (!resumed) throw new SyntaxError(`${name} has hash ${found}, must be ${hash}; it was removed`);
  // What an earlier run left may be what is wrong.
  await output.truncate(0);
  throw new Interruption("what was loaded before doesn't fit");
}

/** The hub's hash: sha256 of a large file, of a small one git's sha1 of its header and content. */
function hashStart(hash: string, sizeBytes: number): Hash {
  return hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${sizeBytes}\0`);
}

async function hashFile(file: Deno.FsFile, digest: Hash): Promise<void> {
  const buffer = new Uint8Array(2 ** 20);
  for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) {
    digest.update(buffer.subarray(0, count));
  }
}

/** The bytes of a file from `start` on. */
async function* streamFrom(
  repo: HubSnapshot["repo"],
  commit: string,
  path: string,
  settings: HubSettings,
  start: number,
  sizeBytes: number,
): AsyncGenerator<Uint8Array> {
  if (start === sizeBytes) return;
  const blob = await asking(repo, settings, async (common) => {
    const params = { ...common, repo: { type: repo.type, name: repo.name }, path, revision: commit };
    const downloadInfo = await fileDownloadInfo(params);
    if (!downloadInfo) throw new SyntaxError(`${describeRepo(repo)} has no ${path}`);
    if (downloadInfo.size !== sizeBytes) {
      throw new SyntaxError(`${describeRepo(repo)}: ${path} has ${downloadInfo.size} bytes, must have ${sizeBytes}`);
    }
    // Plain ranges of bytes: they can be resumed anywhere.
    return await downloadFile({ ...params, downloadInfo, xet: false });
  });
  const reader = blob!.slice(start, sizeBytes).stream().getReader();
  try {
    while (true) {
      const deadlineMs = performance.now() + settings.stallMs;
      // One byte now and then isn't a download.
      for (let wanted = settings.stallMs * MIN_BYTES_PER_MS; wanted > 0;) {
        const { done, value } = await readChunk(reader, deadlineMs - performance.now(), settings.stallMs);
        if (done) return;
        wanted -= value.length;
        yield value;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Reads the next chunk. @throws {Interruption} when the stream breaks or stands still */
async function readChunk(reader: ReadableStreamDefaultReader<Uint8Array>, waitMs: number, stallMs: number) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stall = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`next to nothing came for ${stallMs / 1000} s`)), Math.max(0, waitMs));
  });
  try {
    return await Promise.race([reader.read(), stall]);
  } catch (error) {
    throw new Interruption((error as Error).message, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
