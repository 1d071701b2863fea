import { formatCell, headingOf, renderIndex, renderResult, renderTable } from "../../experiments/render.ts";
import { EXPERIMENTS } from "../../experiments/registry.ts";
import type { Cell } from "../../experiments/results/result.ts";
import { assertEquals, assertStringIncludes } from "../assert.ts";
import { makeResult } from "./make_result.ts";

Deno.test("renderTable: by hand; columns of numbers to the right, text and mixed ones to the left", () => {
  const columns = [
    { key: "a", label: "a", unit: "" },
    { key: "n", label: "size", unit: "bytes" },
    { key: "m", label: "mixed", unit: "" },
  ];
  const table = renderTable(columns.map(headingOf), [["x|y", 1234, 1], ["long text", null, "two"]]);
  assertEquals(
    table,
    [
      "| a         | size (bytes) | mixed |",
      "| --------- | -----------: | ----- |",
      "| x\\|y      |         1234 | 1     |",
      "| long text |            - | two   |",
    ].join("\n"),
  );
  assertEquals(renderTable(columns.slice(0, 1).map(headingOf), []), "| a   |\n| --- |");
});

Deno.test("formatCell: by hand", () => {
  const cases: readonly (readonly [Cell, string])[] = [
    [null, "-"],
    ["text", "text"],
    ["", ""],
    [0, "0"],
    [-3, "-3"],
    [123456789, "123456789"],
    [0.5, "0.5"],
    [26.872315952, "26.872"],
    [-26.872315952, "-26.872"],
    [2.80000000001, "2.8"],
    [999.996, "1000"],
    [12345.678, "12346"],
    [-12345.678, "-12346"],
    [0.000123456, "0.00012346"],
  ];
  for (const [value, text] of cases) assertEquals(formatCell(value), text);
});

Deno.test("renderResult: a page by hand", () => {
  assertEquals(
    renderResult(makeResult()),
    `# A made-up result

**Claim.** Two rows.

**Verdict: not reproduced.** Paper: 2.85 bits. Measured: 3.125 bits. By hand.

| method | bits (a weight) | time (ms) |
| ------ | --------------: | --------: |
| fp16   |              16 |      12.5 |
| rtn2   |           3.125 |         - |

## Settings

| setting | value |
| ------- | ----- |
| windows | 4     |
| text    | sotu  |

## Provenance

Model tiny (sha256 \`fedcba9876543210\`), seed 1, device software (none, software), Deno 2.9.6, commit \`0123456789\`, ` +
      `started 2026-01-01T00:00:00.000Z, command \`deno task experiment made_up\`. Raw data: [made_up.json](made_up.json).
`,
  );
});

Deno.test("renderResult: says when nothing was measured, the tree was dirty, and the device was a GPU", () => {
  const { environment, verdict } = makeResult();
  const page = renderResult(makeResult({
    verdict: { ...verdict, measured: null, status: "not measured" },
    environment: { ...environment, dirty: true },
    device: { name: "h200", adapter: "NVIDIA H200", software: false },
  }));
  assertStringIncludes(page, "**Verdict: not measured.** Paper: 2.85 bits. Measured: not measured. By hand.");
  assertStringIncludes(page, "device h200 (NVIDIA H200), Deno 2.9.6, commit `0123456789` with uncommitted changes,");
});

Deno.test("renderIndex: a row for every experiment, a column for every device, a link for every result", () => {
  const id = EXPERIMENTS[0].id;
  const { verdict } = makeResult();
  const index = renderIndex(
    new Map([
      ["h200", new Map([[id, makeResult({ id })]])],
      [
        "software",
        new Map([[id, makeResult({ id, verdict: { ...verdict, measured: null, status: "not measured" } })]]),
      ],
    ]),
  );
  const lines = index.split("\n").filter((line) => line.startsWith("|"));
  assertEquals(lines.length, EXPERIMENTS.length + 2);
  const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());
  assertEquals(cells(lines[0]), ["claim", "paper", "quantity", "h200", "software"]);
  assertEquals(cells(lines[2]), [
    `**${id}**: ${EXPERIMENTS[0].claim}`,
    "2.85",
    "bits",
    `**not reproduced**: 3.125 ([table](h200/${id}.md), [plot](h200/${id}.svg))`,
    `**not measured** ([table](software/${id}.md))`,
  ]);
  assertEquals(cells(lines[3]).slice(1), ["-", "-", "-", "-"]);
});
