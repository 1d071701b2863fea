import { readAllResults } from "../../experiments/render.ts";
import { renderReport } from "../../experiments/report/report_page.ts";
import { resultTable } from "../../experiments/report/result_table.ts";
import { PEERS_ID } from "../../experiments/results/peers.ts";
import { RESULTS_ROOT } from "../../experiments/run.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { makeResult } from "./make_result.ts";

const rowsOf = (html: string) => Array.from(html.matchAll(/<tr>(.*?)<\/tr>/gs), (match) => match[1]);

Deno.test("renderReport: twice the same, under 3 MB, without anything from elsewhere", async () => {
  const results = await readAllResults(RESULTS_ROOT);
  const page = await renderReport(results);
  assertEquals(await renderReport(results), page);
  assert(page.length < 3e6, `${page.length} characters`);
  assert(!/\b(?:src|srcset)=|@import|url\((?!#)/.test(page));
  for (const [device, ofDevice] of results) {
    for (const [id, { rows }] of ofDevice) {
      if (id !== PEERS_ID) assertStringIncludes(page, `id="${id}-${device.replaceAll("/", "-")}"`);
      else for (const { program } of rows) assertStringIncludes(page, `<td>${program}</td>`);
    }
  }
});

Deno.test("resultTable: standard errors stand beside values, all digits are kept, empty columns are left out", () => {
  const table = resultTable(makeResult({
    columns: ["method", "loss", "loss_error", "kl"].map((key) => ({
      key,
      label: key,
      unit: key === "loss" ? "nats" : "",
    })),
    rows: [{ method: "a<b", loss: 3.1234567, loss_error: 0.12345, kl: null }, {
      method: "c",
      loss: null,
      loss_error: null,
    }],
  }));
  assertEquals(rowsOf(table), [
    '\n<th><button type="button">method</button></th>\n' +
    '<th class="number"><button type="button">loss ± standard error <small>nats</small></button></th>\n\n',
    '<td>a&lt;b</td><td class="number" data-value="3.1234567" title="3.1234567">3.1235 <small>± 0.12</small></td>',
    '<td>c</td><td class="number">-</td>',
  ]);
});

Deno.test("resultTable: each row has its own samples, the table the rest", () => {
  const table = resultTable(makeResult({ samples: { "rtn2: ms": [1, 2.5], "curve": [0, 1, 2] } }));
  const [, fp16, rtn2] = rowsOf(table);
  assert(fp16.endsWith("<td>-</td>"));
  assertStringIncludes(rtn2, "<summary>2 values</summary><p><b>rtn2: ms</b><br>1 2.5</p>");
  assertStringIncludes(table, "Raw data of the whole table: ");
  assertStringIncludes(table, "<b>curve</b><br>0 1 2");
});
