// A local server that answers as the Hugging Face hub does, and misbehaves on request.
import { createHash } from "node:crypto";

/** How the server treats one file. */
export interface Misbehaviour {
  /** Breaks the connection after so many bytes of each answer. */
  readonly breakAfter?: number;
  /** Sends nothing, but keeps the connection open for so long. */
  readonly stallMs?: number;
  /** Sends a byte at a time, so far apart. */
  readonly trickleMs?: number;
  /** Sends other bytes than the hash says. */
  readonly corrupt?: boolean;
  /** Says another size when asked for the file than in the list. */
  readonly otherSize?: boolean;
  /** Answers with this status. */
  readonly status?: number;
}

/** A running server. */
export interface FakeHub extends AsyncDisposable {
  readonly endpoint: string;
  /** Method, path and range of every request. */
  readonly requests: string[];
  /** By path in the repository; may be changed at any time. */
  readonly misbehaves: Map<string, Misbehaviour>;
  /** Entries of the file list, changed before it is sent. */
  editList: (entry: Record<string, unknown>) => Record<string, unknown>;
  /** The commit that every revision names. */
  commit: string;
  /** Answers every request with this status where it is set. */
  status?: number;
  /** Answers requests for what isn't a file, where it gives an answer. */
  answer?: (path: string) => Response | undefined;
}

/** Files above this size are "large": the hub gives their sha256. */
const LARGE = 5000;

const hex = (algorithm: string, ...parts: (string | Uint8Array)[]) => {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

function entryOf(path: string, bytes: Uint8Array): Record<string, unknown> {
  const base = { type: "file", path, size: bytes.length };
  if (bytes.length <= LARGE) return { ...base, oid: hex("sha1", `blob ${bytes.length}\0`, bytes) };
  const lfs = { oid: hex("sha256", bytes), size: bytes.length, pointerSize: 134 };
  return { ...base, oid: hex("sha1", path), lfs };
}

/** Serves files by their path in the repository `name`, which is `ORG/NAME` or `datasets/ORG/NAME`. */
export function serveHub(name: string, files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): FakeHub {
  const api = name.startsWith("datasets/") ? `/api/${name}` : `/api/models/${name}`;
  const server = Deno.serve({ port: 0, onListen: () => {} }, answer);
  const hub: FakeHub = {
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    requests: [],
    misbehaves: new Map(),
    editList: (entry) => entry,
    commit: "c".repeat(40),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
  return hub;

  function answer(request: Request): Response {
    const path = decodeURIComponent(new URL(request.url).pathname);
    const range = request.headers.get("range");
    hub.requests.push(`${request.method} ${path}${range ? ` ${range}` : ""}`);
    if (hub.status) return Response.json({ error: "no" }, { status: hub.status });
    const other = path.startsWith("/api/") ? hub.answer?.(path) : undefined;
    if (other) return other;
    if (path.startsWith(`${api}/revision/`)) return Response.json({ _id: "1", id: name, sha: hub.commit });
    if (path.startsWith(`${api}/tree/`)) {
      const folder = path.split("/").slice(api.split("/").length + 2).join("/");
      const inFolder = (file: string) => file.slice(0, Math.max(0, file.lastIndexOf("/"))) === folder;
      const list = Array.from(files).filter(([file]) => inFolder(file)).map(([file, bytes]) => entryOf(file, bytes));
      return Response.json(list.map((entry) => hub.editList(entry)));
    }
    const file = path.slice(`/${name}/resolve/${hub.commit}/`.length);
    const bytes = files.get(file);
    if (!bytes) return new Response("", { status: 404, headers: { "X-Error-Code": "EntryNotFound" } });
    return sendRange(bytes, range, hub.misbehaves.get(file) ?? {});
  }
}

function sendRange(bytes: Uint8Array<ArrayBuffer>, range: string | null, how: Misbehaviour): Response {
  if (how.status) return Response.json({ error: "no" }, { status: how.status });
  const [first, last] = (range ?? `bytes=0-${bytes.length - 1}`).slice(6).split("-").map(Number);
  const part = bytes.slice(first, last + 1);
  if (how.corrupt) part[0] ^= 1;
  const total = bytes.length + (how.otherSize ? 1 : 0);
  const headers = { "content-range": `bytes ${first}-${last}/${total}`, etag: '"x"' };
  const { breakAfter, stallMs, trickleMs } = how;
  if (trickleMs !== undefined && part.length > 1) {
    const pull = (controller: ReadableStreamDefaultController) =>
      wait(trickleMs).then(() => controller.enqueue(new Uint8Array(1))).catch(() => {});
    return new Response(new ReadableStream({ pull }), { status: 206, headers });
  }
  if (stallMs !== undefined && part.length > 1) {
    const start = (controller: ReadableStreamDefaultController) => wait(stallMs).then(() => controller.close());
    return new Response(new ReadableStream({ start }), { status: 206, headers });
  }
  if (breakAfter === undefined || breakAfter >= part.length) return new Response(part, { status: 206, headers });
  const body = new ReadableStream({
    async start(controller) {
      controller.enqueue(part.slice(0, breakAfter));
      await wait(20);
      controller.error(new Error("broken on purpose"));
    },
  });
  return new Response(body, { status: 206, headers });
}

function wait(durationMs: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, durationMs));
}
