// Repositories of the Hugging Face hub and their place in its cache. What the hub answers is checked before it names
// anything on disk: commits and blobs are hexadecimal, files are in the list of those that are wanted.
import { join } from "@std/path";
import { datasetInfo, getRepoFolderName, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { writeTextBeside } from "../host/atomic_file.ts";
import type { HubSettings } from "./hub_settings.ts";
import { pathExists } from "../host/path_exists.ts";
import { clipText, quoteText } from "../host/quote_text.ts";

export interface HubRepo {
  /** What it holds. */
  readonly type: "model" | "dataset";
  /** ORG/NAME */
  readonly name: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** A file of a repository, as the hub describes it. */
export interface HubFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** sha256 of a large file; git's hash (sha1) of a small one. */
  readonly hash: string;
}

/** A repository at a commit: what the hub has of it, and where the cache keeps it. */
export interface HubSnapshot {
  readonly repo: HubRepo;
  /** The commit that its revision names. */
  readonly commit: string;
  /** Directory of the repository in the cache. */
  readonly storage: string;
  /** Directory of the commit's files. */
  readonly directory: string;
  /** The repository's files by path; undefined when offline. */
  readonly files?: ReadonlyMap<string, HubFile>;
}

/** Files of a repository that are listed; those of models have some hundred. */
const MAX_FILES = 20_000;

const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** Parses `hf:ORG/NAME[@REVISION]`. @throws {RangeError} */
export function parseHubName(text: string): HubRepo {
  const [, name, revision = "main"] = /^hf:([\w.-]+\/[\w.-]+)(?:@([\w./-]+))?$/.exec(text) ?? [];
  const parts = `${name}/${revision}`.split("/");
  if (!name || parts.some((part) => part === "" || part.startsWith(".") || part.includes(".."))) {
    throw new RangeError(`model is ${text}, must be hf:ORG/NAME or hf:ORG/NAME@REVISION`);
  }
  return { type: "model", name, revision };
}

/**
 * Finds the commit of a revision and lists its files (those of `folder`); offline, finds it in the cache.
 *
 * @throws {Error} saying what to do when the hub can't be reached, refuses, or the cache lacks the revision
 */
export async function openSnapshot(repo: HubRepo, settings: HubSettings, folder = ""): Promise<HubSnapshot> {
  const storage = join(settings.cache, getRepoFolderName({ type: repo.type, name: repo.name }));
  const at = (commit: string) => ({ repo, commit, storage, directory: join(storage, "snapshots", commit) });
  const reference = join(storage, "refs", repo.revision);
  if (settings.offline) {
    const commit = COMMIT.test(repo.revision) ? repo.revision : await readReference(reference);
    if (!commit || !await pathExists(at(commit).directory)) {
      throw new Error(`${describeRepo(repo)} is not in the cache ${settings.cache}, and HF_HUB_OFFLINE is set`);
    }
    return at(commit);
  }
  return await asking(repo, settings, async (common) => {
    const asked = { ...common, name: repo.name, revision: repo.revision, additionalFields: ["sha" as const] };
    const { sha } = repo.type === "model" ? await modelInfo(asked) : await datasetInfo(asked);
    if (typeof sha !== "string" || !COMMIT.test(sha)) {
      throw new SyntaxError(`${describeRepo(repo)}: commit is ${quoteText(sha)}, must be 40 hex digits`);
    }
    const files = new Map<string, HubFile>();
    const listed = listFiles({ ...common, repo: { type: repo.type, name: repo.name }, revision: sha, path: folder });
    for await (const { type, path, size, oid, lfs } of listed) {
      if (type === "file") files.set(path, { path, sizeBytes: lfs?.size ?? size, hash: lfs?.oid ?? oid ?? "" });
      if (files.size > MAX_FILES) {
        throw new SyntaxError(`${describeRepo(repo)} lists more than ${MAX_FILES} files, must list fewer`);
      }
    }
    if (repo.revision !== sha) {
      await Deno.mkdir(join(reference, ".."), { recursive: true });
      await writeTextBeside(reference, sha);
    }
    return { ...at(sha), files };
  });
}

async function readReference(path: string): Promise<string | undefined> {
  if (!await pathExists(path)) return undefined;
  const commit = (await Deno.readTextFile(path)).trim();
  if (!COMMIT.test(commit)) throw new SyntaxError(`${path} holds ${quoteText(commit)}, must be a commit`);
  return commit;
}

/** What the hub says of a wanted file. @throws {SyntaxError} when it lacks it or describes it in no known way */
export function hubFile({ repo, files }: HubSnapshot, path: string): HubFile {
  const file = files?.get(path);
  if (!file) throw new SyntaxError(`${describeRepo(repo)} has no ${path}`);
  if (!HASH.test(file.hash) || !Number.isSafeInteger(file.sizeBytes) || file.sizeBytes < 0) {
    throw new SyntaxError(
      `${describeRepo(repo)}: ${path} has hash ${quoteText(file.hash)} and ${
        quoteText(file.sizeBytes)
      } bytes, must have 40 ` +
        "or 64 hex digits and a size",
    );
  }
  return file;
}

export function describeRepo({ type, name, revision }: HubRepo): string {
  const model = type === "model" ? "hf:" : "the hub's data set ";
  return `${model}${name}${revision === "main" ? "" : `@${revision}`}`;
}

/** The hub can't be reached; for a while, perhaps. */
export class HubUnreachable extends Error {
  /** Tells it from other errors where only the name is left. */
  override readonly name = "HubUnreachable";
}

/** Asks the hub something, and says in one message what went wrong and what to do. */
export async function asking<T>(
  repo: HubRepo,
  { endpoint, token, stallMs }: HubSettings,
  ask: (common: { hubUrl: string; accessToken?: string; fetch: typeof fetch }) => Promise<T>,
): Promise<T> {
  try {
    return await ask({ hubUrl: endpoint, fetch: fetchSoon(stallMs), ...(token && { accessToken: token }) });
  } catch (cause) {
    // A permission that is missing is nothing that the hub answers.
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    const { message } = cause as Error;
    const name = describeRepo(repo);
    if (cause instanceof HubApiError) throw new Error(explainStatus(repo, endpoint, cause, token), { cause });
    // What fetch throws when there is no connection, or none in time.
    if (cause instanceof DOMException || (cause instanceof TypeError && /fetch|request|connect/i.test(message))) {
      throw new HubUnreachable(
        `${endpoint} cannot be reached for ${name} (${
          clipText(message)
        }); what is in the cache works with HF_HUB_OFFLINE=1`,
        { cause },
      );
    }
    // Errors of this folder name the repository; those of the library stumble over an answer.
    if (message.includes(name) || cause instanceof Deno.errors.NotFound) throw cause;
    throw new SyntaxError(`${endpoint} answers for ${name} in no known way: ${clipText(message)}`, { cause });
  }
}

/** Largest answer that isn't a file. */
const MAX_ANSWER_BYTES = 2 ** 25;

/** A `fetch` that gives up where an answer doesn't start in time, or goes on without end; files are read by their reader. */
function fetchSoon(stallMs: number): typeof fetch {
  return async (input, init) => {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new DOMException(`no answer in ${stallMs / 1000} s`)), stallMs);
    try {
      const response = await fetch(input, { ...init, signal: abort.signal });
      if (!response.body || !new URL(String(input)).pathname.startsWith("/api/")) return response;
      const parts: Uint8Array<ArrayBuffer>[] = [];
      let sizeBytes = 0;
      for await (const part of response.body) {
        parts.push(part);
        if ((sizeBytes += part.length) > MAX_ANSWER_BYTES) {
          throw new SyntaxError(`it has more than ${MAX_ANSWER_BYTES} bytes`);
        }
      }
      return new Response(new Blob(parts), response);
    } finally {
      clearTimeout(timer);
    }
  };
}

function explainStatus(repo: HubRepo, endpoint: string, { statusCode, message }: HubApiError, token?: string): string {
  const page = `${endpoint}/${repo.type === "model" ? "" : "datasets/"}${repo.name}`;
  const name = describeRepo(repo);
  if (statusCode === 401 || statusCode === 403) {
    const who = token ? "the token that was given lacks access" : "no token was given";
    return `${name} is gated or private, or does not exist, and ${who} (${statusCode}); accept its terms at ${page} and ` +
      "set HF_TOKEN";
  }
  if (statusCode === 404) return `${name} is not on the hub, or its revision ${repo.revision} is not (404)`;
  return `${endpoint} answered ${statusCode} for ${name}: ${clipText(message)}`;
}
