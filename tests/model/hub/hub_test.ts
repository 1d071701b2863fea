import { parseConfig } from "../../../model/llama/config.ts";
import { fetchModel } from "../../../model/hub/hub_model.ts";
import { fetchFile } from "../../../model/hub/hub_download.ts";
import { hubFile, openSnapshot, parseHubName } from "../../../model/hub/hub_repo.ts";
import type { HubSettings } from "../../../model/hub/hub_settings.ts";
import { loadModel } from "../../../model/load.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../../assert.ts";
import { filesIn, inDirectory } from "../../temporary.ts";
import { type FakeHub, serveHub } from "./fake_hub.ts";

const FIXTURE = new URL("../../fixtures/llama3_scaled_bias/", import.meta.url).pathname;
const NAME = "some-org/Tiny.Model-1";
const REPO = parseHubName(`hf:${NAME}`);
const SHARD = "model-00001-of-00003.safetensors";

const FILES = new Map(
  filesIn(FIXTURE).filter((name) => name !== "expected.json").map((name) => [name, Deno.readFileSync(FIXTURE + name)]),
);
FILES.set("tokenizer.json", new TextEncoder().encode("{}"));
FILES.set("chat_template.jinja", new TextEncoder().encode("{{ messages }}"));
FILES.set("generation_config.json", new TextEncoder().encode("{}"));
FILES.set("pytorch_model.bin", new Uint8Array(10));
FILES.set("README.md", new Uint8Array(10));

/** Runs a test with a server and an empty cache. */
async function withHub(use: (hub: FakeHub, settings: HubSettings) => Promise<void>, files = FILES): Promise<void> {
  await using hub = serveHub(NAME, files);
  await inDirectory((cache) =>
    use(hub, { endpoint: hub.endpoint, cache: `${cache}/hub`, offline: false, retryDelayMs: 1, stallMs: 10_000 })
  );
}

const storageOf = ({ cache }: HubSettings) => `${cache}/models--some-org--Tiny.Model-1`;
const blobsOf = (settings: HubSettings) => filesIn(`${storageOf(settings)}/blobs`);

Deno.test("fetchModel: loads the needed files alone, into the standard cache, and once", () =>
  withHub(async (hub, settings) => {
    const directory = await fetchModel(REPO, settings);
    assertEquals(directory, `${storageOf(settings)}/snapshots/${hub.commit}`);
    const wanted = Array.from(FILES.keys()).filter((name) => /^(config|generation|tokenizer|chat|model)/.test(name))
      .sort();
    assertEquals(filesIn(directory), wanted);
    for (const name of wanted) assertEquals(await Deno.readFile(`${directory}/${name}`), FILES.get(name));
    // The layout of Python's huggingface_hub: a link to the blob, which is named by its hash.
    assert(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/.test(await Deno.readLink(`${directory}/${SHARD}`)));
    assert(/^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/.test(await Deno.readLink(`${directory}/config.json`)));
    assertEquals(await Deno.readTextFile(`${storageOf(settings)}/refs/main`), hub.commit);
    hub.requests.length = 0;
    assertEquals(await fetchModel(REPO, settings), directory);
    assertEquals(hub.requests.filter((request) => request.includes("/resolve/")), []);
  }));

Deno.test("fetchModel: a broken connection is resumed where it broke", () =>
  withHub(async (hub, settings) => {
    hub.misbehaves.set(SHARD, { breakAfter: 10_000 });
    const shares: number[] = [];
    const directory = await fetchModel(REPO, settings, (share) => shares.push(share));
    assertEquals(await Deno.readFile(`${directory}/${SHARD}`), FILES.get(SHARD));
    const ranges = hub.requests.filter((request) => request.includes(SHARD) && !request.endsWith("bytes=0-0"));
    assertEquals(ranges.map((range) => Number(/bytes=(\d+)/.exec(range)?.[1] ?? 0)), [0, 10_000, 20_000]);
    assert(shares.every((share, i) => i === 0 || share >= shares[i - 1]) && shares.at(-1) === 1);
  }));

Deno.test("fetchModel: after too many breaks what is there stays, and the next run goes on with it", () =>
  withHub(async (hub, settings) => {
    hub.misbehaves.set(SHARD, { breakAfter: 1000 });
    await assertRejects(
      () => fetchModel(REPO, settings),
      Error,
      `${SHARD} broke off 5 times`,
    );
    const [partial] = blobsOf(settings).filter((name) => name.endsWith(".incomplete"));
    assertEquals((await Deno.stat(`${storageOf(settings)}/blobs/${partial}`)).size, 5000);
    hub.misbehaves.clear();
    hub.requests.length = 0;
    const directory = await fetchModel(REPO, settings);
    assertEquals(await Deno.readFile(`${directory}/${SHARD}`), FILES.get(SHARD));
    assert(hub.requests.some((request) => request.includes(SHARD) && request.includes("bytes=5000-")));
    assert(blobsOf(settings).every((name) => !name.endsWith(".incomplete")));
  }));

Deno.test("fetchModel: a connection that stands still counts as broken", () =>
  withHub(async (hub, settings) => {
    hub.misbehaves.set(SHARD, { stallMs: 1500 });
    await assertRejects(
      () => fetchModel(REPO, { ...settings, stallMs: 200 }),
      Error,
      "broke off 5 times (next to nothing came for 0.2 s)",
    );
  }));

Deno.test("fetchFile: a hub that goes away in between is tried again", async () => {
  const hub = serveHub(NAME, FILES);
  await inDirectory(async (cache) => {
    const settings = { endpoint: hub.endpoint, cache, offline: false, retryDelayMs: 1, stallMs: 10_000 };
    const snapshot = await openSnapshot(REPO, settings);
    await hub[Symbol.asyncDispose]();
    const fetching = fetchFile(snapshot, hubFile(snapshot, SHARD), settings);
    await assertRejects(() => fetching, Error, "broke off 5 times (http://127.0.0.1");
  });
});

Deno.test("fetchModel: what an earlier run left is thrown away when it doesn't fit", () =>
  withHub(async (_hub, settings) => {
    const first = await fetchModel(REPO, settings);
    const blob = await Deno.realPath(`${first}/${SHARD}`);
    await Deno.writeFile(`${blob}.incomplete`, new Uint8Array(3000));
    await Deno.remove(blob);
    const directory = await fetchModel(REPO, settings);
    assertEquals(await Deno.readFile(`${directory}/${SHARD}`), FILES.get(SHARD));
  }));

Deno.test("fetchModel: a wrong hash, a wrong length and a commit that is none are refused, and nothing stays", () =>
  withHub(async (hub, settings) => {
    for (const [name, kind] of [["config.json", 40], [SHARD, 64]] as const) {
      hub.misbehaves.clear();
      hub.misbehaves.set(name, { corrupt: true });
      const error = await assertRejects(() => fetchModel(REPO, settings), SyntaxError, `${name} has hash`);
      assert(new RegExp(`must be [0-9a-f]{${kind}}; it was removed`).test(error.message), error.message);
      hub.misbehaves.set(name, { otherSize: true });
      await assertRejects(() => fetchModel(REPO, settings), SyntaxError, "bytes, must have");
      assert(blobsOf(settings).every((blob) => !blob.endsWith(".incomplete")));
    }
    hub.commit = "../../../etc";
    await assertRejects(() => fetchModel(REPO, settings), SyntaxError, "must be 40 hex digits");
  }));

Deno.test("fetchModel: a gated, a missing and a failing repository are one clear message each", () =>
  withHub(async (hub, settings) => {
    const fails = (status: number, message: string, more: Partial<HubSettings> = {}) => {
      hub.status = status;
      return assertRejects(() => fetchModel(REPO, { ...settings, ...more }), Error, message);
    };
    await fails(401, "is gated or private, or does not exist, and no token was given (401); accept its terms at http");
    await fails(403, "the token that was given lacks access (403)", { token: "hf_x" });
    await fails(404, `hf:${NAME} is not on the hub, or its revision main is not (404)`);
    await fails(500, "answered 500 for");
    delete hub.status;
    hub.misbehaves.set("config.json", { status: 403 });
    await assertRejects(() => fetchModel(REPO, settings), Error, "is gated or private");
    assertEquals(blobsOf(settings).filter((name) => !name.endsWith(".incomplete")), []);
  }));

Deno.test("fetchModel: offline it takes what is cached, and says when there is nothing", () =>
  withHub(async (hub, settings) => {
    const offline = { ...settings, offline: true };
    await assertRejects(() => fetchModel(REPO, offline), Error, "is not in the cache");
    const directory = await fetchModel(REPO, settings);
    hub.requests.length = 0;
    assertEquals(await fetchModel(REPO, offline), directory);
    assertEquals(await fetchModel({ ...REPO, revision: hub.commit }, offline), directory);
    await assertRejects(() => fetchModel({ ...REPO, revision: "v2" }, offline), Error, "@v2 is not in the cache");
    assertEquals(hub.requests, []);
    await Deno.writeTextFile(`${storageOf(settings)}/refs/main`, "../../elsewhere");
    await assertRejects(() => fetchModel(REPO, offline), SyntaxError, "must be a commit");
  }));

Deno.test("fetchModel: a connection that brings a byte now and then counts as broken", () =>
  withHub(async (hub, settings) => {
    hub.misbehaves.set(SHARD, { trickleMs: 20 });
    await assertRejects(
      () => fetchModel(REPO, { ...settings, stallMs: 100 }),
      Error,
      `${SHARD} broke off 5 times (next to nothing came for 0.1 s)`,
    );
  }));

Deno.test("fetchModel: answers of no known form are one short line that names the repository", async (t) => {
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(2 ** 20).fill(32)) });
  const entries = (page: number) =>
    Array.from({ length: 1000 }, (_, i) => ({ type: "file", path: `f${page}_${i}`, size: 1, oid: "b".repeat(40) }));
  let page = 0;
  const cases: Readonly<Record<string, (hub: FakeHub) => NonNullable<FakeHub["answer"]>>> = {
    "null": () => () => Response.json(null),
    "a page to log in": () => () =>
      new Response("<html>\u001b[31mlogin\n", { headers: { "content-type": "text/html" } }),
    "no list of files": () => (path) => path.includes("/tree/") ? Response.json({ a: 1 }) : undefined,
    "a list of nothing": () => (path) => path.includes("/tree/") ? Response.json([null, 3]) : undefined,
    "an answer without end": () => () => new Response(endless),
    "pages without end": ({ endpoint }) => (path) =>
      path.includes("/tree/")
        ? Response.json(entries(page++), { headers: { link: `<${endpoint}${path}?cursor=${page}>; rel="next"` } })
        : undefined,
    "another kind of commit": () => (path) => path.includes("/tree/") ? undefined : Response.json({ sha: { a: 1 } }),
  };
  for (const [what, answer] of Object.entries(cases)) {
    await t.step(what, () =>
      withHub(async (hub, settings) => {
        hub.answer = answer(hub);
        const { message } = await assertRejects(() => fetchModel(REPO, settings), SyntaxError, NAME);
        // deno-lint-ignore no-control-regex -- that is what must not be there
        assert(message.length < 300 && !/[\x00-\x1f\x7f-\x9f]/.test(message), message);
      }));
  }
});

Deno.test("fetchModel: a hub that doesn't answer is given up", () =>
  withHub(async (hub, settings) => {
    hub.answer = () => new Response(new ReadableStream({ pull: () => new Promise(() => {}) }));
    const { message } = await assertRejects(
      () => fetchModel(REPO, { ...settings, stallMs: 50 }),
      Error,
      "cannot be reached",
    );
    assertStringIncludes(message, "no answer in 0.05 s");
  }));

Deno.test("fetchFile: a link in the cache that leads out of it is refused", () =>
  withHub(async (_hub, settings) => {
    const directory = await fetchModel(REPO, settings);
    await Deno.remove(`${directory}/config.json`);
    await Deno.symlink("/etc/hostname", `${directory}/config.json`);
    for (const offline of [false, true]) {
      const fetching = fetchModel(REPO, { ...settings, offline });
      await assertRejects(() => fetching, Error, "is a link to /etc/hostname, must lead nowhere outside");
    }
  }));

Deno.test("fetchModel: 60 calls of one process on 10 caches all get the whole model", () =>
  withHub(async (_hub, settings) => {
    for (let cache = 0; cache < 10; cache++) {
      const own = { ...settings, cache: `${settings.cache}${cache}` };
      const directories = await Promise.all(Array.from({ length: 6 }, () => fetchModel(REPO, own)));
      for (const directory of directories) {
        for (const name of ["config.json", SHARD]) {
          assertEquals(await Deno.readFile(`${directory}/${name}`), FILES.get(name));
        }
      }
      assertEquals(blobsOf(own).filter((name) => !/^[0-9a-f]+$/.test(name)), []);
      assert(filesIn(directories[0]).every((name) => !name.includes("partial")));
    }
  }));

Deno.test("fetchModel: 100 of 100 fetches by four processes on one cache get the whole model", () =>
  withHub(async (hub, settings) => {
    const program = new URL("./fetch_repeatedly.ts", import.meta.url).pathname;
    const config = new URL("../../../deno.json", import.meta.url).pathname;
    const startMs = Date.now() + 6000;
    const outputs = await Promise.all(Array.from({ length: 4 }, () =>
      new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-A",
          "--no-check",
          "--config",
          config,
          program,
          NAME,
          hub.endpoint,
          settings.cache,
          `${startMs}`,
        ],
      }).output()));
    for (const { stdout, stderr } of outputs) {
      assertEquals(new TextDecoder().decode(stdout), "25\n", new TextDecoder().decode(stderr));
    }
  }));

Deno.test("fetchModel: without network it is one message that names the way out", () =>
  withHub(async (_hub, settings) => {
    const nowhere = { ...settings, endpoint: "http://127.0.0.1:1" };
    await assertRejects(() => fetchModel(REPO, nowhere), Error, "http://127.0.0.1:1 cannot be reached for hf:some-org");
    await assertRejects(() => fetchModel(REPO, nowhere), Error, "HF_HUB_OFFLINE=1");
  }));

Deno.test("fetchModel: no name of the hub's leaves the cache", async (t) => {
  const cases: readonly (readonly [what: string, edit: FakeHub["editList"], message: string])[] = [
    ["a hash with a path", (entry) => ({ ...entry, oid: "../../../../x", lfs: undefined }), "has hash"],
    ["no hash", ({ oid: _, lfs: __, ...entry }) => entry, 'has hash ""'],
    ["a size that is none", (entry) => ({ ...entry, size: -1, lfs: undefined }), "-1 bytes"],
    ["a file elsewhere", (entry) => ({ ...entry, path: `../${entry.path}` }), "has no config.json"],
  ];
  for (const [what, edit, message] of cases) {
    await t.step(what, () =>
      withHub(async (hub, settings) => {
        hub.editList = edit;
        await assertRejects(() => fetchModel(REPO, settings), SyntaxError, message);
        assertEquals(filesIn(settings.cache), ["models--some-org--Tiny.Model-1"]);
        assertEquals(filesIn(storageOf(settings)), ["refs"]);
      }));
  }
  const files = new Map(FILES);
  files.set(
    "model.safetensors.index.json",
    new TextEncoder().encode(JSON.stringify({ weight_map: { a: "../../evil.safetensors" } })),
  );
  await t.step("an index with a path", () =>
    withHub(async (_hub, settings) => {
      await assertRejects(() => fetchModel(REPO, settings), SyntaxError, "must be the name of a .safetensors file");
    }, files));
});

Deno.test("fetchModel: an unsupported architecture is refused before its weights are loaded", async () => {
  const files = new Map(FILES);
  files.set("config.json", new TextEncoder().encode('{"architectures": ["GPT2LMHeadModel"]}'));
  await withHub(async (hub, settings) => {
    await assertRejects(() => fetchModel(REPO, settings), SyntaxError, 'architecture "GPT2LMHeadModel"');
    assert(hub.requests.every((request) => !request.includes(".safetensors")));
  }, files);
});

Deno.test("parseHubName: names, revisions and what is none", () => {
  assertEquals(parseHubName("hf:a/b"), { type: "model", name: "a/b", revision: "main" });
  assertEquals(parseHubName("hf:a/b-1.x@refs/pr/3").revision, "refs/pr/3");
  for (
    const bad of [
      "hf:",
      "hf:a",
      "hf:a/b/c",
      "hf:../b",
      "hf:a/..",
      "hf:a/b@",
      "hf:a/b@../x",
      "hf:a/b@x/../../y",
      "hf:a/b@/x",
    ]
  ) {
    assertThrows(() => parseHubName(bad), RangeError, "must be hf:ORG/NAME");
  }
});

Deno.test("loadModel: hf:ORG/NAME by the environment that Hugging Face's tools share", () =>
  inDirectory(async (home) => {
    const tiny = new URL("../../../model/tiny/", import.meta.url);
    const small = new Map(
      await Promise.all(
        ["tokenizer.json", "tokenizer_config.json"].map(async (name) =>
          [name, await Deno.readFile(new URL(name, tiny))] as const
        ),
      ),
    );
    const llama = new URL("../../fixtures/llama_tied_gqa/", import.meta.url);
    small.set("model.safetensors", await Deno.readFile(new URL("model.safetensors", llama)));
    small.set("config.json", await Deno.readFile(new URL("config.json", llama)));
    await using hub = serveHub(NAME, small);
    await Deno.writeTextFile(`${home}/token`, "hf_secret\n");
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        new URL("../../../cli/main.ts", import.meta.url).pathname,
        "perplexity",
        "--model",
        `hf:${NAME}`,
      ],
      env: { HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: "", HF_HUB_OFFLINE: "", HF_TOKEN: "" },
    }).output();
    // The fixture's vocabulary is smaller than the tokenizer's, so the command ends after loading both.
    assertEquals(new TextDecoder().decode(stdout), "");
    assertStringIncludes(
      new TextDecoder().decode(stderr),
      "the tokenizer has 4096 tokens, must have at most the model's 96",
    );
    assertEquals(filesIn(`${home}/hub/models--some-org--Tiny.Model-1/snapshots/${hub.commit}`).length, 4);
    assertEquals(parseConfig("c", new TextDecoder().decode(small.get("config.json"))).architecture, "LlamaForCausalLM");
    await assertRejects(() => loadModel("hf:nothing"), RangeError, "model is hf:nothing, must be hf:ORG/NAME");
  }));
