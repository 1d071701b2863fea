import { assert, assertEquals } from "./assert.ts";

const ROOT = new URL("../", import.meta.url);
const { exports }: { exports: Readonly<Record<string, string>> } = JSON.parse(await read("deno.json"));
const ENTRIES = Object.values(exports);

/** The registry takes no larger packages. */
const MAX_BYTES = 20e6;

async function deno(...args: string[]): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const { success, ...output } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT.pathname }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `deno ${args.join(" ")}: ${stderr}`);
  return { stdout, stderr };
}

function read(path: string): Promise<string> {
  return Deno.readTextFile(new URL(path, ROOT));
}

/** Everything that a module imports, and it: files of the repository, shaders included. */
async function filesOf(module: string): Promise<string[]> {
  const { modules } = JSON.parse((await deno("info", "--json", module)).stdout);
  return modules.map(({ specifier }: { specifier: string }) => specifier)
    .filter((specifier: string) => specifier.startsWith(ROOT.href) && !/\/node_modules\/|\.d\.ts$/.test(specifier));
}

Deno.test("package: it holds what its entries and workers import, and neither checkpoint nor fixtures", async () => {
  const { stderr } = await deno("publish", "--dry-run", "--allow-dirty", "--no-check");
  const published = new Set(stderr.match(/file:\/\/\S+/g));
  for (const module of [...ENTRIES, "./model/workers/cpu_worker.ts"]) {
    for (const file of await filesOf(module)) assert(published.has(file), `${file} of ${module} is not published`);
  }
  let sizeBytes = 0;
  for (const file of published) {
    assert(!/\/(?:tests|results|experiments|model\/tiny)\//.test(file), `${file} is published`);
    sizeBytes += (await Deno.stat(new URL(file))).size;
  }
  assert(sizeBytes < MAX_BYTES, `the package has ${sizeBytes} bytes, must have at most ${MAX_BYTES}`);
});

interface Declaration {
  readonly kind: string;
  readonly location: { readonly filename: string };
  readonly jsDoc?: { readonly doc?: string };
}

interface Entry {
  readonly module_doc: { readonly doc: string };
  readonly symbols: readonly { readonly name: string; readonly declarations: readonly Declaration[] }[];
}

function examplesIn(doc = ""): string {
  return Array.from(doc.matchAll(/```ts\n(.*?)```/gs), ([, code]) => code).join();
}

Deno.test("package: an example names every function and class, in its documentation or its entry's, and is run", async () => {
  const nodes: Record<string, Entry> = JSON.parse((await deno("doc", "--json", ...ENTRIES)).stdout).nodes;
  assertEquals(Object.keys(nodes).length, ENTRIES.length);
  const { tasks } = JSON.parse(await read("deno.json"));
  const [, tested] = /--doc --no-check --parallel ([^&]*)/.exec(tasks.test.command) ?? [];
  const isRun = (file: string) => tested.trim().split(" ").some((part) => file.startsWith(new URL(part, ROOT).href));
  for (const [entry, { module_doc, symbols }] of Object.entries(nodes)) {
    assert(isRun(entry), `${entry} is not among ${tested}`);
    for (const { name, declarations: [{ kind, location, jsDoc }] } of symbols) {
      if (kind !== "function" && kind !== "class") continue;
      const examples = examplesIn(module_doc.doc) + (isRun(location.filename) ? examplesIn(jsDoc?.doc) : "");
      assert(new RegExp(`\\b${name}\\b`).test(examples), `${name} of ${entry} has no example that is run`);
      assert(/\bassert\w*\(/.test(examples), `the example of ${name} asserts nothing`);
    }
  }
});
