import { assert, assertEquals } from "./assert.ts";

const ROOT = new URL("../", import.meta.url);

/**
 * The rooms of the house, from the ground up: a file imports from its own room and from rooms that stand before it in one
 * of these orders. A room is a folder, or a file that stands by itself.
 */
const ORDERS: readonly string[] = [
  "quant < quant/baselines < quant/quantize.ts < model/host",
  "quant < kernels/gpu < kernels/matrix < kernels/tokens < kernels/product < kernels/layer",
  "kernels/tokens < kernels/attention < kernels/layer",
  "kernels/matrix < kernels/quantize",
  "kernels/product < kernels/backward < model/host",
  "kernels/attention < kernels/backward",
  "kernels/layer < model/host",
  "kernels/quantize < model/host",
  "model/host < model/llama < model/files < model/hub < model/text < model/load.ts < model/engine",
  "model/engine < model/tune < model/quantize < model/workers",
  "model/engine < model/evaluate < model/workers",
  "model/engine < model/load_engine.ts",
  "model/workers < model/quantize_options.ts < model/quantize_file.ts < experiments < experiments/report < cli",
  "experiments < experiments/peers < cli",
  "model/host < experiments/results < experiments/plots < experiments",
  "model/load_engine.ts < experiments",
  "model/load_engine.ts < web",
  "model/engine < web",
];

/** Imports against the order, each with its reason. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  "cli/serve.ts": "web", // serves the page
  "web/kernel_tests.ts": "tests", // runs them in the browser
};

/** All rooms, and those that each may import from. */
const ALLOWED = allowedBy(ORDERS);

function allowedBy(orders: readonly string[]): ReadonlyMap<string, ReadonlySet<string>> {
  const below = new Map<string, Set<string>>();
  for (const order of orders) {
    const rooms = order.split(" < ");
    for (const [i, room] of rooms.entries()) {
      const known = below.get(room) ?? below.set(room, new Set([room])).get(room)!;
      if (i > 0) known.add(rooms[i - 1]);
    }
  }
  for (const [room, known] of below) {
    for (const next of known) {
      assert(next === room || !below.get(next)!.has(room), `${room} and ${next} stand before each other`);
      for (const further of below.get(next)!) known.add(further);
    }
  }
  return below;
}

/** The room of a file: the file itself where it is one, else the deepest folder that is one. */
function roomOf(path: string): string | undefined {
  for (let at = path; at !== "."; at = at.includes("/") ? at.slice(0, at.lastIndexOf("/")) : ".") {
    if (ALLOWED.has(at)) return at;
  }
  return undefined;
}

async function* filesBelow(folder: URL): AsyncGenerator<URL> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const url = new URL(isDirectory ? `${name}/` : name, folder);
    if (isDirectory) yield* filesBelow(url);
    else yield url;
  }
}

async function* sourcesBelow(folder: string): AsyncGenerator<{ path: string; url: URL; code: string }> {
  for await (const url of filesBelow(new URL(folder, ROOT))) {
    if (!url.pathname.endsWith(".ts")) continue;
    yield { path: pathOf(url), url, code: withoutComments(await Deno.readTextFile(url)) };
  }
}

function pathOf(url: URL): string {
  return url.pathname.slice(ROOT.pathname.length);
}

/** The source without comments; texts in quotes and template strings stay. */
function withoutComments(source: string): string {
  const token = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return source.replace(token, (found) => /^\/[/*]/.test(found) ? " " : found);
}

/** The source without imports and re-exports of types, which are gone when it runs. */
function withoutTypes(code: string): string {
  return code.replace(/\b(?:im|ex)port type\b[^;]*;/g, "");
}

/** Specifiers of all imports and re-exports, static and dynamic. */
function specifiersOf(code: string): string[] {
  const form = /(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)"([^"]+)"/g;
  return Array.from(code.matchAll(form), (match) => match[1]);
}

const FOLDERS = ["quant", "kernels", "model", "experiments", "cli", "web"];

for (const folder of FOLDERS) {
  Deno.test(`every file of ${folder}/ has a room and imports only from rooms before it`, async () => {
    let files = 0;
    for await (const { path, url, code } of sourcesBelow(`${folder}/`)) {
      files++;
      const room = roomOf(path);
      assert(room, `${path} is in no room, must be in one of ${[...ALLOWED.keys()].join(", ")}`);
      for (const specifier of specifiersOf(code)) {
        if (!specifier.startsWith(".")) {
          assert(folder !== "quant", `${path} imports ${specifier}, must import nothing outside quant/`);
          continue;
        }
        const target = pathOf(new URL(specifier, url));
        const isOwnData = target === "" || target === "results" || target.startsWith(".scratch") ||
          target.startsWith("model/tiny");
        const other = EXCEPTIONS[path];
        const isExcepted = other !== undefined && (target === other || target.startsWith(`${other}/`));
        assert(isOwnData || isExcepted || ALLOWED.get(room)!.has(roomOf(target) ?? ""), `${path} imports ${target}`);
      }
    }
    assert(files > 0);
  });
}

Deno.test("no files import each other in a circle, but where a type alone makes it", async () => {
  const imports = new Map<string, string[]>();
  for (const folder of FOLDERS) {
    for await (const { path, url, code } of sourcesBelow(`${folder}/`)) {
      const targets = specifiersOf(withoutTypes(code)).filter((specifier) => specifier.startsWith("."));
      imports.set(path, targets.map((specifier) => pathOf(new URL(specifier, url))));
    }
  }
  const done = new Set<string>();
  const visit = (path: string, above: readonly string[]) => {
    assert(!above.includes(path), `a circle of imports: ${[...above.slice(above.indexOf(path)), path].join(" -> ")}`);
    if (done.has(path)) return;
    for (const target of imports.get(path) ?? []) visit(target, [...above, path]);
    done.add(path);
  };
  for (const path of imports.keys()) visit(path, []);
  assert(done.size > 0);
});

Deno.test("no folder has more than 30 source files", async () => {
  const counts = new Map<string, number>();
  for (const folder of FOLDERS) {
    for await (const url of filesBelow(new URL(`${folder}/`, ROOT))) {
      const path = pathOf(url);
      if (!/\.(ts|wgsl|wat)$/.test(path)) continue;
      const room = path.slice(0, path.lastIndexOf("/"));
      counts.set(room, (counts.get(room) ?? 0) + 1);
    }
  }
  for (const [room, files] of counts) assert(files <= 30, `${room} has ${files} source files, must have at most 30`);
});

Deno.test("what the page imports has no platform but the browser's", async () => {
  const known = new Set([new URL("web/page.ts", ROOT).href]);
  for (const href of known) {
    if (!href.endsWith(".ts")) continue;
    // Imports of types are gone when the script is bundled.
    const code = withoutTypes(withoutComments(await Deno.readTextFile(new URL(href))));
    const path = href.slice(ROOT.href.length);
    // The one place that asks where it runs: it registers tests.
    if (path !== "tests/test.ts") {
      assert(!/\bDeno\s*[.[]/.test(code), `${path} uses Deno, must do without in a browser (tests: tests/test.ts)`);
    }
    for (const specifier of specifiersOf(code)) {
      assert(!specifier.startsWith("node:"), `${path} imports ${specifier}`);
      if (specifier.startsWith(".")) known.add(new URL(specifier, href).href);
    }
  }
  assert(known.has(new URL("kernels/product/fused_gemv.wgsl", ROOT).href), "the page imports the kernels");
});

Deno.test("the package's entries re-export from quant, kernels and model alone, name by name", async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  for (const entry of Object.values<string>(exports)) {
    const code = withoutComments(await Deno.readTextFile(new URL(entry, ROOT)));
    const folders = specifiersOf(code).map((specifier) => specifier.split("/").slice(0, 2).join("/"));
    assert(folders.length > 0);
    for (const folder of folders) assert(["./quant", "./kernels", "./model"].includes(folder), `${entry}: ${folder}`);
    assert(!code.includes("*"), `${entry} exports *, must say what`);
  }
});

Deno.test("quant/ has no platform, no clock and no randomness of its own", async () => {
  for await (const { path, code } of sourcesBelow("quant/")) {
    const found = code.match(/\b(?:Deno|performance|process|navigator|Date|Temporal|crypto|Math\.random|setTimeout)\b/);
    assertEquals(found?.[0], undefined, path);
  }
});

Deno.test("only cli/ reads the command line", async () => {
  for (const folder of FOLDERS.filter((folder) => folder !== "cli")) {
    for await (const { path, code } of sourcesBelow(`${folder}/`)) {
      assert(!/\bDeno\s*\.\s*args\b|\bprocess\s*\.\s*argv\b|\bparseArgs\b/.test(code), path);
    }
  }
});

Deno.test("modules of Node are imported only where Deno's standard library has nothing", async () => {
  // Sums of streams, free space, the home directory, finding a package without fetching it.
  const everywhere = ["node:crypto", "node:fs/promises", "node:os", "node:module"];
  // Deno.serve never ends a connection that stands still.
  const listening = ["node:http", "node:net", "node:stream", "node:stream/promises", "node:stream/web"];
  // Collecting what a native library leaves, and arrays of workers.
  const collecting = ["node:v8", "node:vm"];
  const ofFile: Readonly<Record<string, string[]>> = {
    "web/listen.ts": listening,
    "model/host/garbage.ts": collecting,
  };
  for (const folder of FOLDERS) {
    for await (const { path, code } of sourcesBelow(`${folder}/`)) {
      const allowed = ofFile[path] ?? everywhere;
      const other = specifiersOf(code).find((specifier) =>
        specifier.startsWith("node:") && !allowed.includes(specifier)
      );
      assert(other === undefined, `${path} imports ${other}, must be one of ${allowed.join(", ")} or @std/`);
    }
  }
});
