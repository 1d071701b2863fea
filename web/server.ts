// The server of the page: its own three files and the files of one model, to this machine alone.
import type { ByteSource } from "../model/files/byte_source.ts";
import { openFileSource } from "../model/files/file_source.ts";
import { clipText } from "../model/host/quote_text.ts";
import { bundlePage } from "./bundle_page.ts";
import type { Handler } from "./listen.ts";
import type { ModelFiles } from "./model_files.ts";

/** The page may load nothing but what this server gives, and no other site may show or read any of it. */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store",
};

/** Names by which a browser on this machine reaches the server; under another name a foreign site may be behind it. */
const HOSTS = ["localhost", "127.0.0.1"];

/** Makes the handler: bundles the page's script and takes the model's files as they are listed. */
export async function createHandler(model: ModelFiles): Promise<Handler> {
  const read = (file: string) => Deno.readFile(new URL(file, import.meta.url));
  const own = new Map<string, { readonly type: string; readonly body: Uint8Array<ArrayBuffer> }>([
    ["/", { type: "text/html; charset=utf-8", body: await read("index.html") }],
    ["/style.css", { type: "text/css; charset=utf-8", body: await read("style.css") }],
    ["/page.js", { type: "text/javascript; charset=utf-8", body: await bundlePage() }],
    ["/model.json", { type: "application/json", body: new TextEncoder().encode(JSON.stringify(model.listing)) }],
  ]);
  // Requests are looked up whole, so that no path leads to any other file.
  const weights = new Map(Array.from(model.paths, ([file, path]) => [`/model/${encodeURIComponent(file)}`, path]));
  return async (request) => {
    const { hostname, pathname } = new URL(request.url);
    if (!HOSTS.includes(hostname)) return refuse(403, `host is ${clipText(hostname)}, must be ${HOSTS.join(" or ")}`);
    const isHead = request.method === "HEAD";
    if (request.method !== "GET" && !isHead) {
      return refuse(405, `method is ${clipText(request.method)}, must be GET or HEAD`, { allow: "GET, HEAD" });
    }
    const found = own.get(pathname);
    if (found) {
      const headers = { ...HEADERS, "content-type": found.type, "content-length": `${found.body.length}` };
      return new Response(isHead ? null : found.body, { headers });
    }
    const path = weights.get(pathname);
    if (path === undefined) return refuse(404, `there is no ${clipText(pathname)}`);
    return await sendFile(path, request.headers.get("range"), isHead);
  };
}

/** Sends a model's file, or the one range of it that is asked for. */
async function sendFile(path: string, range: string | null, isHead: boolean): Promise<Response> {
  const source = await openFileSource(path);
  const { sizeBytes } = source;
  const headers = { ...HEADERS, "content-type": "application/octet-stream", "accept-ranges": "bytes" };
  const [start, end] = range === null ? [0, sizeBytes] : parseRange(range, sizeBytes) ?? [0, -1];
  if (isHead || end < start) source[Symbol.dispose]();
  if (end < start) {
    const message = `range is ${clipText(range!)}, must be bytes=FIRST-LAST within ${sizeBytes} bytes`;
    return refuse(416, message, { "content-range": `bytes */${sizeBytes}` });
  }
  return new Response(isHead ? null : streamRange(source, start, end), {
    status: range === null ? 200 : 206,
    headers: {
      ...headers,
      "content-length": `${end - start}`,
      ...(range !== null && { "content-range": `bytes ${start}-${end - 1}/${sizeBytes}` }),
    },
  });
}

/** First byte of a range and the one behind its last: `FIRST-LAST`, `FIRST-` or `-LENGTH`; undefined for any other. */
function parseRange(range: string, sizeBytes: number): readonly [start: number, end: number] | undefined {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(range) ?? [];
  if (first === undefined || (first === "" && last === "")) return undefined;
  const start = first === "" ? Math.max(0, sizeBytes - Number(last)) : Number(first);
  const end = first === "" || last === "" ? sizeBytes : Math.min(sizeBytes, Number(last) + 1);
  return start < end ? [start, end] : undefined;
}

/** Bytes that are read at a time. */
const PART_BYTES = 2 ** 18;

/** The bytes of a source from `start` to `end`, read as they are taken; the source is closed afterwards. */
function streamRange(source: ByteSource, start: number, end: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let at = start;
  const close = () => source[Symbol.dispose]();
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        if (at < end) controller.enqueue(await source.read(at, Math.min(PART_BYTES, end - at)));
      } catch (error) {
        close();
        throw error;
      }
      at += PART_BYTES;
      if (at < end) return;
      close();
      controller.close();
    },
    cancel: close,
  });
}

function refuse(status: number, message: string, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(message, {
    status,
    headers: { ...HEADERS, ...headers, "content-type": "text/plain; charset=utf-8" },
  });
}
