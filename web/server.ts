/**
 * The server of the page: its own three files and the files of one model, to this machine alone.
 *
 * @module
 */
import { openFileSource } from "../model/files/file_source.ts";
import { bundlePage } from "./bundle_page.ts";
import type { ModelFiles } from "./model_files.ts";

/** Answers a request. */
export type Handler = (request: Request) => Promise<Response>;

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
    if (!HOSTS.includes(hostname)) return refuse(403, `host is ${hostname}, must be ${HOSTS.join(" or ")}`);
    if (request.method !== "GET") return refuse(405, `method is ${request.method}, must be GET`, { allow: "GET" });
    const found = own.get(pathname);
    if (found) return new Response(found.body, { headers: { ...HEADERS, "content-type": found.type } });
    const path = weights.get(pathname);
    if (path === undefined) return refuse(404, `there is no ${pathname}`);
    return await sendFile(path, request.headers.get("range"));
  };
}

/** Sends a model's file, or the one range of it that is asked for. */
async function sendFile(path: string, range: string | null): Promise<Response> {
  const headers = { ...HEADERS, "content-type": "application/octet-stream", "accept-ranges": "bytes" };
  if (range === null) {
    const file = await Deno.open(path);
    return new Response(file.readable, { headers });
  }
  using source = await openFileSource(path);
  const { sizeBytes } = source;
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range)?.map(Number) ?? [];
  if (!(first <= last && last < sizeBytes)) {
    const wanted = { "content-range": `bytes */${sizeBytes}` };
    return refuse(416, `range is ${range}, must be bytes=FIRST-LAST within ${sizeBytes} bytes`, wanted);
  }
  const body = await source.read(first, last - first + 1);
  return new Response(body, {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${first}-${last}/${sizeBytes}` },
  });
}

function refuse(status: number, message: string, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(message, {
    status,
    headers: { ...HEADERS, ...headers, "content-type": "text/plain; charset=utf-8" },
  });
}
