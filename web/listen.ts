// Listening for requests, on node:http: unlike Deno.serve it ends connections that stand still.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";

export type Handler = (request: Request) => Promise<Response>;

export interface Listening {
  readonly port: number;
  /** Ends when it has ended. */
  readonly finished: Promise<void>;
}

/** A connection may take so long for a request, and stand still so long within an answer or between two. */
const PATIENCE_MS = 30_000;

/**
 * Listens on this machine's own address until it is told to end.
 *
 * @param port 0 for any that is free
 * @throws {Error} with code EADDRINUSE when another program has the port
 */
export async function listen(
  handler: Handler,
  port: number,
  signal: AbortSignal,
  patienceMs: number = PATIENCE_MS,
): Promise<Listening> {
  const limits = {
    headersTimeout: patienceMs,
    requestTimeout: patienceMs,
    connectionsCheckingInterval: patienceMs / 4,
  };
  const server = createServer({ ...limits, keepAliveTimeout: patienceMs }, (incoming, outgoing) => {
    // A connection that ends before its answer is nobody's loss.
    answer(handler, incoming, outgoing).catch(() => outgoing.destroy());
  });
  server.setTimeout(patienceMs);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  const finished = new Promise<void>((resolve) => server.once("close", () => resolve()));
  const end = () => {
    server.close();
    server.closeAllConnections();
  };
  if (signal.aborted) end();
  else signal.addEventListener("abort", end, { once: true });
  return { port: (server.address() as AddressInfo).port, finished };
}

async function answer(handler: Handler, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  const url = URL.parse(`http://${incoming.headers.host ?? ""}${incoming.url}`);
  if (!url) {
    const message = "the Host header must name a host";
    outgoing.writeHead(400, { "content-type": "text/plain", "content-length": message.length, "connection": "close" });
    outgoing.end(message);
    return;
  }
  const headers = Object.entries(incoming.headers).filter(([, value]) => typeof value === "string") as [
    string,
    string,
  ][];
  const response = await handler(new Request(url, { method: incoming.method!, headers }));
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  if (response.body) await pipeline(Readable.fromWeb(response.body as NodeReadableStream), outgoing);
  else outgoing.end();
}
