/**
 * `deno task render`: Markdown from the committed result files.
 *
 * @module
 */
import { renderAll, writePages } from "../render.ts";
import { RESULTS_ROOT } from "../run.ts";
import type { Command } from "./command.ts";

/** Renders the Markdown of all result files. */
export const render: Command = {
  name: "render",
  summary: "Renders Markdown from the result files below results/. With --check, fails when a page is not up to date.",
  positionals: [],
  options: { check: { type: "boolean", help: "Write nothing; exit code 1 when a page differs from its result file." } },
  async run(options) {
    const pages = await renderAll(RESULTS_ROOT);
    if (options.check !== true) {
      await writePages(pages);
      return 0;
    }
    let stale = 0;
    for (const [path, text] of pages) {
      const committed = await Deno.readTextFile(path).catch(() => undefined);
      if (committed === text) continue;
      stale++;
      console.error(`${path} is ${committed === undefined ? "missing" : "stale"}, run deno task render`);
    }
    return stale > 0 ? 1 : 0;
  },
};
