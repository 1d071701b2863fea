import { assert, assertEquals } from "./assert.ts";

const ROOT = new URL("../", import.meta.url);

/** Which folders the sources of a folder may import from, itself included. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  quant: ["quant"],
  kernels: ["kernels", "quant"],
  model: ["model", "kernels", "quant"],
  experiments: ["experiments", "model", "kernels", "quant"],
  web: ["web", "model", "kernels", "quant"],
};

/** Files that may import from one folder more: a command serves the page, the page runs the kernel tests. */
const ALSO_ALLOWED: Readonly<Record<string, string>> = {
  "experiments/commands/serve.ts": "web",
  "web/kernel_tests.ts": "tests",
};

async function* sourcesBelow(folder: URL): AsyncGenerator<URL> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const url = new URL(isDirectory ? `${name}/` : name, folder);
    if (isDirectory) yield* sourcesBelow(url);
    else if (name.endsWith(".ts")) yield url;
  }
}

/** The source without comments; texts in quotes and template strings stay. */
function withoutComments(source: string): string {
  const token = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return source.replace(token, (found) => /^\/[/*]/.test(found) ? " " : found);
}

/** Specifiers of all imports and re-exports, static and dynamic. */
function specifiersOf(code: string): string[] {
  const form = /(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)"([^"]+)"/g;
  return Array.from(code.matchAll(form), (match) => match[1]);
}

for (const [folder, allowed] of Object.entries(ALLOWED)) {
  Deno.test(`${folder}/ imports from ${allowed.join(", ")} alone`, async () => {
    let files = 0;
    for await (const url of sourcesBelow(new URL(`${folder}/`, ROOT))) {
      files++;
      for (const specifier of specifiersOf(withoutComments(await Deno.readTextFile(url)))) {
        const path = url.pathname.slice(ROOT.pathname.length);
        if (!specifier.startsWith(".")) {
          assert(folder !== "quant", `${path} imports ${specifier}, must import nothing outside quant/`);
          continue;
        }
        const target = new URL(specifier, url).pathname.slice(ROOT.pathname.length);
        const ownResults = folder === "experiments" && target === "results";
        const [top] = target.split("/");
        const isAllowed = allowed.includes(top) || ALSO_ALLOWED[path] === top;
        assert(ownResults || isAllowed || target === "", `${path} imports ${target}`);
      }
    }
    assert(files > 0);
  });
}

Deno.test("what the page imports has no platform but the browser's", async () => {
  const known = new Set([new URL("web/page.ts", ROOT).href]);
  for (const href of known) {
    if (!href.endsWith(".ts")) continue;
    // Imports of types are gone when the script is bundled.
    const code = withoutComments(await Deno.readTextFile(new URL(href))).replace(/\b(?:im|ex)port type\b[^;]*;/g, "");
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
  assert(known.has(new URL("kernels/fused_gemv.wgsl", ROOT).href), "the page imports the kernels");
});

Deno.test("mod.ts re-exports from quant, kernels and model alone", async () => {
  const code = withoutComments(await Deno.readTextFile(new URL("mod.ts", ROOT)));
  const folders = specifiersOf(code).map((specifier) => specifier.split("/").slice(0, 2).join("/"));
  assert(folders.length > 0);
  for (const folder of folders) assert(["./quant", "./kernels", "./model"].includes(folder), folder);
});

Deno.test("quant/ has no platform, no clock and no randomness of its own", async () => {
  for await (const url of sourcesBelow(new URL("quant/", ROOT))) {
    const code = withoutComments(await Deno.readTextFile(url));
    const found = code.match(/\b(?:Deno|performance|process|navigator|Date|Temporal|crypto|Math\.random|setTimeout)\b/);
    assertEquals(found?.[0], undefined, url.pathname);
  }
});

Deno.test("only experiments/ reads the command line", async () => {
  for (const folder of ["quant", "kernels", "model"]) {
    for await (const url of sourcesBelow(new URL(`${folder}/`, ROOT))) {
      const code = withoutComments(await Deno.readTextFile(url));
      assert(!/\bDeno\s*\.\s*args\b|\bprocess\s*\.\s*argv\b|\bparseArgs\b/.test(code), url.pathname);
    }
  }
});
