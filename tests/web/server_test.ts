import { openDirectory } from "../../model/files/open_directory.ts";
import { findModelFiles } from "../../web/model_files.ts";
import { openServedModel } from "../../web/served_model.ts";
import { type Handler, listen } from "../../web/listen.ts";
import { createHandler } from "../../web/server.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { inDirectory } from "../temporary.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;
const SHARDED = `${FIXTURES}llama3_scaled_bias`;

const handler = await createHandler(await findModelFiles(SHARDED));

function get(path: string, headers: Record<string, string> = {}, method = "GET"): Promise<Response> {
  return handler(new Request(`http://localhost:8000${path}`, { headers, method }));
}

/** Runs with a server of this handler on a free port. */
async function withServer(
  handler: Handler,
  use: (address: string) => Promise<void>,
  patienceMs?: number,
): Promise<void> {
  const end = new AbortController();
  const server = await listen(handler, 0, end.signal, patienceMs);
  try {
    await use(`http://127.0.0.1:${server.port}/`);
  } finally {
    end.abort();
    await server.finished;
  }
}

Deno.test("server: the page, its style and its script, which no other site may use", async () => {
  for (
    const [path, type, content] of [
      ["/", "text/html", '<script type="module" src="page.js">'],
      ["/style.css", "text/css", "color-scheme"],
      ["/page.js", "text/javascript", "@compute @workgroup_size"],
      ["/model.json", "application/json", "model-00001-of-00003.safetensors"],
    ]
  ) {
    const response = await get(path);
    assertEquals(response.status, 200);
    assertStringIncludes(response.headers.get("content-type")!, type);
    assertStringIncludes(response.headers.get("content-security-policy")!, "default-src 'none'");
    assertEquals(response.headers.get("x-content-type-options"), "nosniff");
    assertEquals(response.headers.get("cross-origin-resource-policy"), "same-origin");
    assertStringIncludes(await response.text(), content);
  }
});

Deno.test("server: other paths, hosts and methods are refused", async () => {
  for (
    const path of [
      "/deno.json",
      "/page.ts",
      "/model/",
      "/model/..%2fmake_llama.py",
      "/model/../../deno.json",
      "/model/%2e%2e/make_llama.py",
      "/model/%2fetc%2fpasswd",
      "//etc/passwd",
    ]
  ) {
    assertEquals((await get(path)).status, 404, path);
  }
  const foreign = await handler(new Request("http://example.org:8000/"));
  assertEquals([foreign.status, await foreign.text()], [403, "host is example.org, must be localhost or 127.0.0.1"]);
  assertEquals((await get("/", {}, "POST")).status, 405);
});

Deno.test("server: files of the model, whole and by range", async () => {
  const file = "model-00002-of-00003.safetensors";
  const bytes = await Deno.readFile(`${SHARDED}/${file}`);
  assertEquals(await (await get(`/model/${file}`)).bytes(), bytes);
  const part = await get(`/model/${file}`, { range: "bytes=5-104" });
  assertEquals([part.status, part.headers.get("content-range")], [206, `bytes 5-104/${bytes.length}`]);
  assertEquals(await part.bytes(), bytes.slice(5, 105));
  for (
    const [range, start, end] of [
      ["bytes=100-", 100, bytes.length],
      ["bytes=-5", bytes.length - 5, bytes.length],
      ["bytes=-99999999", 0, bytes.length],
      [`bytes=7-${bytes.length}`, 7, bytes.length],
      ["bytes=0-0", 0, 1],
    ] as const
  ) {
    const part = await get(`/model/${file}`, { range });
    assertEquals([part.status, part.headers.get("content-range")], [206, `bytes ${start}-${end - 1}/${bytes.length}`]);
    assertEquals(await part.bytes(), bytes.slice(start, end), range);
  }
  for (const range of [`bytes=${bytes.length}-`, "bytes=7-6", "bytes=-0", "bytes=-", "bytes=0-1,3-4", "words=0-1"]) {
    const refused = await get(`/model/${file}`, { range });
    assertEquals([refused.status, refused.headers.get("content-range")], [416, `bytes */${bytes.length}`], range);
    await refused.body?.cancel();
  }
});

Deno.test("server: HEAD says what GET does, without the content", async () => {
  for (const path of ["/", "/model.json", "/model/model-00002-of-00003.safetensors"]) {
    const [head, whole] = [await get(path, {}, "HEAD"), await get(path)];
    const length = (await whole.bytes()).length;
    assertEquals(
      [head.status, head.headers.get("content-length"), (await head.bytes()).length],
      [200, `${length}`, 0],
      path,
    );
  }
  const part = await get("/model/model-00002-of-00003.safetensors", { range: "bytes=5-9" }, "HEAD");
  assertEquals([part.status, part.headers.get("content-length")], [206, "5"]);
});

Deno.test("server: a file is read as it is taken, and closed when the reader goes", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/big.safetensors`;
    using big = await Deno.create(path);
    await big.truncate(2 ** 40); // sparse: takes no space
    const listing = { name: "big", packed: true, files: { "big.safetensors": 2 ** 40 } };
    const handler = await createHandler({ listing, paths: new Map([["big.safetensors", path]]) });
    for (const headers of [{}, { range: "bytes=100-" }] as const) {
      const { body } = await handler(new Request("http://localhost/model/big.safetensors", { headers }));
      const reader = body!.getReader();
      assert((await reader.read()).value!.length <= 2 ** 20);
      await reader.cancel();
    }
  }));

/** Sends a request as it is and gives all of the answer. */
async function sendRaw(address: string, request: string): Promise<string> {
  const { hostname, port } = new URL(address);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(new TextEncoder().encode(request));
  return await new Response(connection.readable).text();
}

Deno.test("server: a malformed Host is refused with 400 and one line", () =>
  withServer(handler, async (address) => {
    for (const host of ["localhost:99999", "a b", "[", "%%", "localhost:80:80"]) {
      const answer = await sendRaw(address, `GET /model.json HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      assert(answer.startsWith("HTTP/1.1 400 "), answer);
      assert(answer.endsWith("\r\n\r\nthe Host header must name a host"), answer);
    }
  }));

Deno.test("listen: connections end that bring no whole request, or stand still within an answer", async () => {
  const ended = Promise.withResolvers<void>();
  const endless = new ReadableStream({
    pull: (to) => to.enqueue(new Uint8Array(2 ** 16)),
    cancel: () => ended.resolve(),
  });
  await withServer(() => Promise.resolve(new Response(endless)), async (address) => {
    const { hostname, port } = new URL(address);
    for (const start of ["", "GET / HTTP/1.1\r\nHost: localh"]) assertEquals(await sendRaw(address, start), "");
    using reader = await Deno.connect({ hostname, port: Number(port) });
    await reader.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    await ended.promise;
  }, 300);
});

Deno.test("openServedModel reads what openDirectory reads, shard by shard", () =>
  withServer(handler, async (address) => {
    using served = await openServedModel(address);
    using direct = await openDirectory(SHARDED);
    assertEquals(served.config, direct.config);
    assertEquals(served.tensors.map(({ name }) => name), direct.tensors.map(({ name }) => name));
    for (const { name, shape } of direct.tensors) {
      assertEquals(await served.read(name, shape), await direct.read(name, shape), name);
    }
    assertEquals(await served.readText("tokenizer.json"), undefined);
  }));

Deno.test("openServedModel: a server that sends too little or nothing is an error", async () => {
  const listing = { name: "broken", packed: true, files: { "q.safetensors": 1000 } };
  const answer = (body: string, status: number): Handler => (request) =>
    Promise.resolve(request.url.endsWith("model.json") ? Response.json(listing) : new Response(body, { status }));
  await withServer(answer("short", 206), async (address) => {
    await assertRejects(
      () => openServedModel(address),
      RangeError,
      "q.safetensors: the server sent 5 bytes, must send 8",
    );
  });
  await withServer(answer("", 404), async (address) => {
    await assertRejects(() => openServedModel(address), Error, "model/q.safetensors gives 404 Not Found");
  });
});

Deno.test("findModelFiles: the embedded model with its texts; no GGUF file, and nothing that isn't a model", async () => {
  const { listing, paths } = await findModelFiles("tiny");
  assertEquals([listing.name, listing.packed], ["tiny", false]);
  assertEquals(Object.keys(listing.files).sort(), [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  assert([...paths.values()].every((path) => path.includes("/model/tiny/")));
  await assertRejects(() => findModelFiles(`${FIXTURES}gguf/qwen2.gguf`), SyntaxError, "is a GGUF file, must be");
  await assertRejects(() => findModelFiles(FIXTURES), SyntaxError, "has no config.json");
});
