// The report in a real browser. Needs Chromium: `deno task test:browser` installs it.
import { EXPERIMENTS } from "../../experiments/registry.ts";
import { hasPlot } from "../../experiments/plots/plots.ts";
import { readAllResults } from "../../experiments/render.ts";
import { renderReport } from "../../experiments/report/report_page.ts";
import { PEERS_ID } from "../../experiments/results/peers.ts";
import type { Result } from "../../experiments/results/result.ts";
import { RESULTS_ROOT } from "../../experiments/run.ts";
import { assert, assertEquals } from "../assert.ts";
import { inDirectory } from "../temporary.ts";
import { type Page, withPage } from "./chromium.ts";

const RESULTS = await readAllResults(RESULTS_ROOT);

/** Renders the report and opens it. */
async function withReport(use: (page: Page, url: string) => Promise<void>): Promise<void> {
  await inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/report.html`, await renderReport(RESULTS));
    const url = `file://${directory}/report.html`;
    await withPage(async (page) => {
      await page.open(url);
      await use(page, url);
    });
  });
}

/** Texts of a column of the accuracy table. */
const COLUMN = (index: number) =>
  `[...document.querySelectorAll("#accuracy-software tbody tr")].map((row) => row.cells[${index}].textContent)`;
const CLICK = (index: number) => `document.querySelectorAll("#accuracy-software th button")[${index}].click()`;

Deno.test("report: no errors, no network, every plot and table is visible, nothing is cut off; wide, narrow, light, dark", () =>
  withReport(async (page, url) => {
    for (const [width, scheme] of [[1400, "light"], [400, "dark"]] as const) {
      await page.emulate(width, scheme);
      await page.open(url);
      await page.evaluate('for (const part of document.querySelectorAll(".result")) part.open = true');
      const plots = await page.evaluate(
        '[...document.querySelectorAll(".plot")].map((plot) => Math.min(plot.clientWidth, plot.clientHeight))',
      ) as number[];
      assertEquals(
        plots.length,
        [...RESULTS.values()].flatMap((results) => [...results.values()]).filter(hasPlot).length,
      );
      assert(plots.every((side) => side > 100), `plots are ${plots} pixels`);
      const tables = await page.evaluate(
        '[...document.querySelectorAll("table")].filter((table) => table.clientHeight > 50).length',
      );
      // Rows of other programs are a table beside each experiment that they belong to.
      const tablesOf = ([id, { rows }]: [string, Result]) =>
        id === PEERS_ID ? new Set(rows.map(({ experiment }) => experiment)).size : 1;
      const wanted = [...RESULTS.values()].flatMap((results) => [...results].map(tablesOf));
      assertEquals(tables, wanted.reduce((sum, count) => sum + count, 1));
      assertEquals(await page.evaluate("document.documentElement.scrollWidth"), width);
    }
    assertEquals(page.errors, []);
    assertEquals(new Set(page.requests), new Set([url]));
  }));

Deno.test("report: page and plots follow the reader's colour scheme", () =>
  withReport(async (page) => {
    const colours = `[document.body, document.querySelector(".plot text")].map((element) => {
      const style = getComputedStyle(element);
      return element === document.body ? style.backgroundColor : style.fill;
    })`;
    await page.emulate(1400, "light");
    assertEquals(await page.evaluate(colours), ["rgb(255, 255, 255)", "rgb(31, 35, 40)"]);
    await page.emulate(1400, "dark");
    assertEquals(await page.evaluate(colours), ["rgb(13, 17, 23)", "rgb(230, 237, 243)"]);
  }));

Deno.test("report: tables sort by text and by number, up and down, and stay whole", () =>
  withReport(async (page) => {
    const methods = await page.evaluate(COLUMN(0)) as string[];
    await page.evaluate(CLICK(0));
    const byName = await page.evaluate(COLUMN(0)) as string[];
    assertEquals(byName, methods.toSorted((a, b) => a.localeCompare(b, "en", { numeric: true })));
    await page.evaluate(CLICK(1));
    const bits = (await page.evaluate(COLUMN(1)) as string[]).map(Number);
    assertEquals(bits, bits.toSorted((a, b) => a - b));
    await page.evaluate(CLICK(1));
    assertEquals((await page.evaluate(COLUMN(1)) as string[]).map(Number), bits.toReversed());
    const sorted = await page.evaluate(
      '[...document.querySelectorAll("#accuracy-software th")].map((head) => head.ariaSort)',
    );
    assertEquals((sorted as unknown[]).filter((state) => state !== null), ["descending"]);
    assertEquals((await page.evaluate(COLUMN(0)) as string[]).toSorted(), methods.toSorted());
    assertEquals(page.errors, []);
  }));

Deno.test("report: every link inside the page leads somewhere and opens what is closed", () =>
  withReport(async (page, url) => {
    const lost =
      '[...document.querySelectorAll("a[href^=\\"#\\"]")].filter((a) => !document.querySelector(a.hash)).length';
    assertEquals(await page.evaluate(lost), 0);
    assert(await page.evaluate('document.querySelectorAll(".summary a").length') as number >= EXPERIMENTS.length);
    const closed = await page.evaluate('document.querySelector(".result:not([open])")?.id') as string | undefined;
    if (closed) {
      await page.open(`${url}?#${closed}`);
      assertEquals(await page.evaluate(`document.getElementById("${closed}").open`), true);
    }
  }));

Deno.test("report: prints", () =>
  withReport(async (page) => {
    const { data } = await page.send("Page.printToPDF", {});
    const pdf = new TextDecoder("latin1").decode(Uint8Array.fromBase64(data as string));
    assert(pdf.startsWith("%PDF"));
    assert(pdf.match(/\/Type \/Page\b/g)!.length > 5);
  }));
