// `deno task report`: one HTML page from all result files.
import { join } from "@std/path";
import { writeTextBeside } from "../model/host/atomic_file.ts";
import { readAllResults } from "../experiments/render.ts";
import { renderReport } from "../experiments/report/report_page.ts";
import { RESULTS_ROOT } from "../experiments/run.ts";
import { type Command, textOption, UsageError } from "./command.ts";

export const report: Command = {
  name: "report",
  summary: "Writes one HTML page with every claim, verdict, table, plot and raw sample below results/. It needs no " +
    "network to be read.",
  options: { out: { value: "FILE", help: "The page to write (default results/report.html)." } },
  async run(options) {
    const out = textOption(options, "out", join(RESULTS_ROOT, "report.html"));
    if (out === "") throw new UsageError("--out is empty, must name the page to write");
    const page = await renderReport(await readAllResults(RESULTS_ROOT));
    await writeTextBeside(out, page);
    console.log(`${out}: ${(page.length / 1e6).toFixed(2)} MB`);
    return 0;
  },
};
