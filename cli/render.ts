// `deno task render`: Markdown and plots from the committed result files.
import { dirname, join, relative } from "@std/path";
import { fillFragments } from "../experiments/fill_fragments.ts";
import { readAllResults, renderAll, writePages } from "../experiments/render.ts";
import { RESULTS_ROOT } from "../experiments/run.ts";
import type { Command } from "./command.ts";

export const render: Command = {
  name: "render",
  summary:
    "Renders Markdown and plots from the result files below results/, and the numbers of README.md and docs/. With " +
    "--check, fails when one of them is not up to date.",
  options: {
    check: { help: "Write nothing; exit code 1 when a page or plot differs from its result file." },
  },
  async run(options) {
    const pages = await renderAll(RESULTS_ROOT);
    const orphans = await findOrphans(pages);
    for (const [path, text] of await renderDocuments()) pages.set(path, text);
    if (options.check !== true) {
      await writePages(pages);
      return 0;
    }
    for (const path of orphans) console.error(`${path} is rendered from no result file, remove it`);
    let stale = orphans.length;
    for (const [path, text] of pages) {
      const committed = await Deno.readTextFile(path).catch(() => undefined);
      if (committed === text) continue;
      stale++;
      console.error(`${path} is ${committed === undefined ? "missing" : "stale"}, run deno task render`);
    }
    return stale > 0 ? 1 : 0;
  },
};

/** Hand-written pages whose numbers come from results: README.md and docs/. */
async function renderDocuments(): Promise<Map<string, string>> {
  const root = dirname(RESULTS_ROOT);
  const paths = [join(root, "README.md")];
  for await (const { name } of Deno.readDir(join(root, "docs"))) {
    if (name.endsWith(".md")) paths.push(join(root, "docs", name));
  }
  const byPlace = await readAllResults(RESULTS_ROOT);
  const pages = new Map<string, string>();
  for (const path of paths.sort()) {
    pages.set(path, fillFragments(relative(root, path), await Deno.readTextFile(path), byPlace));
  }
  return pages;
}

/** Renderings of results that are gone. */
async function findOrphans(pages: ReadonlyMap<string, string>): Promise<string[]> {
  const orphans: string[] = [];
  for (const directory of new Set(Array.from(pages.keys(), dirname))) {
    for await (const { name } of Deno.readDir(directory)) {
      const path = join(directory, name);
      if (/\.(md|svg)$/.test(name) && !pages.has(path)) orphans.push(path);
    }
  }
  return orphans;
}
